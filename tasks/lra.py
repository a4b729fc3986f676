"""The Long Range Arena (Tay et al. 2020, arXiv 2011.04006) as tasks; `builders` has the data.

Every sequence is classified as a whole. Bytes and tokens are embedded; pixels are features between
−1 and 1, as the recipes of S4 (Gu et al. 2021, arXiv 2111.00396) have them.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tasks.batch import Split
from tasks.generators import listops, pathfinder
from tasks.options import flag, whole
from tasks.registry import register
from tasks.sources import DataMissingError, Report
from tasks.stored import Rows, StoredTask

_BYTES = 256
_GUESSES = {"chance": "names a class at random"}
_REFERENCE_EXPRESSIONS = 10_000


class _LraTask(StoredTask):
    """A task whose rows are those of a TFDS builder."""

    def __init__(self, shape: Sequence[int], num_examples: Sequence[int], *, varies: bool):
        """Rows of this shape; varies: they are padded, and their lengths are known."""
        self.max_length = shape[-1]
        self.num_examples = dict(zip(("train", "validation", "test"), num_examples, strict=True))
        for split, size in self.num_examples.items():
            if whole(f"num_{split}_examples", size) > 2**30:
                raise ValueError(f"num_{split}_examples={size}: expected at most 2**30")
        integer = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
        self.spec = {"inputs": jax.ShapeDtypeStruct(tuple(shape), jnp.uint8), "label": integer(())}
        if varies:
            self.spec["length"] = integer(tuple(shape[:-1]))

    def make_builder(self) -> Any:
        """The builder of the data; imports TFDS."""
        raise TypeError(f"{type(self).__name__} must define make_builder()")

    @functools.cached_property
    def builder(self) -> Any:
        """As `make_builder`.

        Raises:
          DataMissingError: TFDS is not installed.
        """
        try:
            return self.make_builder()
        except ImportError as error:
            raise DataMissingError(
                f"{type(self).__name__} needs {error.name}: pip install -e '.[data]'"
            ) from error

    def prepare(self, report: Report | None = None) -> None:
        builder = self.builder
        from tasks.builders import prepared

        prepared.prepare(builder, report)
        for split, expected in self.num_examples.items():
            size = prepared.num_rows(builder, split)
            if size != expected:
                raise DataMissingError(
                    f"{builder.info.full_name} has {size:,} {split} rows, expected {expected:,}: "
                    f"set task.options.num_{split}_examples to that, or replace the data"
                )

    def read(self, split: Split, indices: np.ndarray) -> Rows:
        from tasks.builders import prepared

        return prepared.rows(self.builder, split, indices)


@register("lra_listops")
class LraListops(_LraTask):
    """The value of a nested expression of MIN, MAX, MED and SUM_MOD.

    Args:
      max_depth, max_arguments, operator_share, length: of `listops.Grammar`.
      num_train_examples, num_validation_examples, num_test_examples: all expressions differ.
      data_seed: of the expressions.
    """

    vocab_size = len(listops.TOKENS)
    num_classes = listops.NUM_CLASSES

    def __init__(
        self,
        *,
        max_depth: int = 10,
        max_arguments: int = 10,
        operator_share: float = 0.25,
        length: Sequence[int] = (501, 1999),
        num_train_examples: int = 96_000,
        num_validation_examples: int = 2_000,
        num_test_examples: int = 2_000,
        data_seed: int = 0,
    ):
        self.grammar = listops.Grammar(max_depth, max_arguments, operator_share, length)
        self.data_seed = whole("data_seed", data_seed, 0)
        sizes = (num_train_examples, num_validation_examples, num_test_examples)
        super().__init__((self.grammar.length[1],), sizes, varies=True)

    def make_builder(self) -> Any:
        from tasks.builders import listops as builders

        return builders.LraListops(
            config=builders.Config(
                grammar=self.grammar,
                num_examples=tuple(self.num_examples.values()),
                seed=self.data_seed,
            )
        )

    def reference_scores(self) -> dict[str, float]:
        """The commonest value of such expressions, and the grammar itself."""
        return {"majority": _commonest(self.grammar), "grammar": 1.0}

    def reference_notes(self) -> dict[str, str]:
        return {
            "grammar": "evaluates the expression",
            "majority": "always answers the commonest value",
        }


@functools.cache  # a page asks for it again and again
def _commonest(grammar: listops.Grammar) -> float:
    """The share of the commonest value."""
    expressions = grammar.expressions(np.random.default_rng(0))
    values = [next(expressions)[1] for _ in range(_REFERENCE_EXPRESSIONS)]
    return float(np.bincount(values).max() / len(values))


class _Pixels(_LraTask):
    """Bytes as shades of grey."""

    vocab_size = None
    num_features = 1

    def features(self, inputs: jax.Array) -> jax.Array:
        return inputs.astype(jnp.float32)[..., None] / 127.5 - 1


@register("lra_pathfinder")
class LraPathfinder(_Pixels):
    """Detection of a dashed curve that joins two dots. Path-X is the same at size 128.

    Args:
      size: width and height; 128 starts from `pathfinder.PATH_X`, others from
        `pathfinder.PATHFINDER`.
      difficulty: what differs from there, by the names of `pathfinder.Difficulty`.
      release: the images of the LRA release, which a person must have put into the manual
        directory, instead of generated ones.
      num_train_examples, num_validation_examples, num_test_examples: how many images.
      data_seed: of the images; with release, of what belongs to which split.
    """

    version = 2
    num_classes = 2

    def __init__(
        self,
        *,
        size: int = 32,
        difficulty: Mapping[str, Any] = MappingProxyType({}),
        release: bool = False,
        num_train_examples: int = 160_000,
        num_validation_examples: int = 20_000,
        num_test_examples: int = 20_000,
        data_seed: int = 0,
    ):
        if not isinstance(difficulty, Mapping):
            raise ValueError(f"difficulty={difficulty!r}: expected values by name, such as margin")
        known = [f.name for f in dataclasses.fields(pathfinder.Difficulty) if f.name != "size"]
        for name in difficulty:
            if name not in known:
                raise ValueError(f"difficulty has {name!r}, expected some of {', '.join(known)}")
        if flag("release", release) and (difficulty or size not in pathfinder.RELEASED_SIZES):
            raise ValueError(
                f"release=True with size={size} and difficulty={dict(difficulty)}: the release has "
                f"sizes {pathfinder.RELEASED_SIZES} and is as it is; leave difficulty empty"
            )
        start = pathfinder.PATH_X if size == 128 else pathfinder.PATHFINDER
        self.difficulty = dataclasses.replace(start, size=size, **difficulty)
        self.release, self.data_seed = release, whole("data_seed", data_seed, 0)
        sizes = (num_train_examples, num_validation_examples, num_test_examples)
        super().__init__((size**2,), sizes, varies=False)

    def make_builder(self) -> Any:
        from tasks.builders import pathfinder as builders

        sizes = tuple(self.num_examples.values())
        if self.release:
            release = builders.ReleaseConfig(
                size=self.difficulty.size, num_examples=sizes, seed=self.data_seed
            )
            return builders.LraPathfinder(config=release)
        return builders.LraPathfinder(
            config=builders.Config(
                difficulty=self.difficulty, num_examples=sizes, seed=self.data_seed
            )
        )

    def reference_scores(self) -> dict[str, float]:
        """Either answer, as both are equally frequent, and whoever can follow a curve."""
        return {"chance": 0.5, "solved": 1.0}

    def reference_notes(self) -> dict[str, str]:
        return {"solved": "is right for every image", **_GUESSES}


@register("lra_text")
class LraText(_LraTask):
    """Sentiment of a film review, read byte by byte. IMDb (Maas et al. 2011), first 4,096 bytes.

    The published code validates on the test set; here 2,500 of the 25,000 training reviews are kept
    for it.
    """

    vocab_size = _BYTES
    num_classes = 2

    def __init__(self):
        super().__init__((4096,), (22_500, 2_500, 25_000), varies=True)

    def make_builder(self) -> Any:
        from tasks.builders import text

        return text.LraText()

    def reference_scores(self) -> dict[str, float]:
        """Half of the reviews are positive."""
        return {"chance": 0.5}

    def reference_notes(self) -> dict[str, str]:
        return _GUESSES


@register("lra_image")
class LraImage(_Pixels):
    """Classification of grey pictures of 32 × 32 pixels: CIFAR-10 (Krizhevsky 2009), row by row."""

    num_classes = 10

    def __init__(self):
        super().__init__((1024,), (45_000, 5_000, 10_000), varies=False)

    def make_builder(self) -> Any:
        from tasks.builders import image

        return image.LraImage()

    def reference_scores(self) -> dict[str, float]:
        """The test set has as many pictures of every class."""
        return {"chance": 0.1}

    def reference_notes(self) -> dict[str, str]:
        return _GUESSES


@register("lra_retrieval")
class LraRetrieval(_LraTask):
    """Citation between two papers of the ACL Anthology Network, first 4,000 bytes of each.

    The files of the LRA release must be in the manual directory.
    """

    head = "pair"
    vocab_size = _BYTES
    num_classes = 2

    def __init__(self):
        super().__init__((2, 4000), (147_086, 18_090, 17_437), varies=True)

    def make_builder(self) -> Any:
        from tasks.builders import retrieval

        return retrieval.LraRetrieval()

    def reference_scores(self) -> dict[str, float]:
        """About half of the pairs cite each other."""
        return {"chance": 0.5}

    def reference_notes(self) -> dict[str, str]:
        return _GUESSES
