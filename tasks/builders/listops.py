"""ListOps as in the Long Range Arena (Tay et al. 2020, arXiv 2011.04006), generated here."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tasks.batch import SPLITS
from tasks.builders.builder import Builder, Example, Split, check
from tasks.generators.listops import NUM_CLASSES, Grammar

_STREAMS = {"test": 2, "validation": 1, "train": 0}  # numbers of the streams of random numbers
_IN_VAIN = 100_000  # expressions in a row that were all there before


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """Grammar, number and seed of the expressions.

    Attributes:
      grammar: how they grow.
      num_examples: of train, validation and test.
      seed: of all of them.
    """

    name: str = ""
    grammar: Grammar = dataclasses.field(default_factory=Grammar)
    num_examples: tuple[int, int, int] = (96_000, 2_000, 2_000)
    seed: int = 0

    def __post_init__(self):
        check(seed=self.seed, num_examples=self.num_examples)
        grammar = self.grammar
        self.name = "-".join(
            [
                "length_{}_{}".format(*grammar.length),
                f"depth_{grammar.max_depth}",
                f"arguments_{grammar.max_arguments}",
                f"operators_{grammar.operator_share!r}",
                "rows_{}_{}_{}".format(*self.num_examples),
                f"seed_{self.seed}",
            ]
        )


class LraListops(Builder):
    """Expressions, each once within and across the splits, and their values.

    The test expressions are drawn first and the training expressions last: how many there are to
    train on changes nothing about the others.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    Config = Config
    description = "Nested list operations on digits (MIN, MAX, MED, SUM_MOD) and their values."
    homepage = "https://arxiv.org/abs/2011.04006"
    num_classes = NUM_CLASSES

    @property
    def max_length(self) -> int:
        return self.builder_config.grammar.length[1]

    def splits(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Split]:
        del dl_manager  # everything is made here
        sizes = dict(zip(SPLITS, self.builder_config.num_examples, strict=True))
        seen: set[bytes] = set()
        return {
            name: Split(sizes[name], self._new(number, seen)) for name, number in _STREAMS.items()
        }

    def _new(self, stream: int, seen: set[bytes]) -> Iterator[Example]:
        """Expressions of a stream that are not in `seen`, where they are put."""
        config = self.builder_config
        rng = np.random.default_rng([config.seed, stream])
        in_vain = 0
        for ids, value in config.grammar.expressions(rng):
            digest = hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                in_vain = 0
                yield {"inputs": ids, "label": value}
            else:
                in_vain += 1
                if in_vain == _IN_VAIN:
                    raise ValueError(
                        f"num_examples={config.num_examples}: {_IN_VAIN:,} expressions in a row "
                        f"were all among the {len(seen):,} before; ask for fewer or longer ones"
                    )
