"""Pathfinder (Linsley et al. 2018, arXiv 1805.08315) at 32 × 32 and, as Path-X, at 128 × 128: made
here, or the original images of the Long Range Arena (Tay et al. 2020, arXiv 2011.04006).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import ClassVar

import joblib
import numpy as np
import tensorflow_datasets as tfds

from tasks.batch import SPLITS
from tasks.builders.builder import Builder, Example, Split, check
from tasks.builders.pathfinder_release import ReleaseConfig
from tasks.generators.pathfinder import Difficulty

_CHUNK_ROWS = 1024  # images of one stream of random numbers, drawn by one process


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """Images that are made here.

    Attributes:
      difficulty: what they look like.
      num_examples: of train, validation and test.
      seed: of all of them.
    """

    name: str = ""
    difficulty: Difficulty = dataclasses.field(default_factory=Difficulty)
    num_examples: tuple[int, int, int] = (160_000, 20_000, 20_000)
    seed: int = 0

    def __post_init__(self):
        check(seed=self.seed, num_examples=self.num_examples)
        looks = dataclasses.asdict(self.difficulty)
        self.name = "-".join(
            [
                *(f"{name}_{value}" for name, value in looks.items()),
                "rows_{}_{}_{}".format(*self.num_examples),
                f"seed_{self.seed}",
            ]
        )

    @property
    def size(self) -> int:
        """Width and height."""
        return self.difficulty.size

    def splits(self, builder: Builder) -> Mapping[str, Split]:
        """Images of three separate streams of random numbers."""
        del builder  # nothing is needed from its folders
        return {
            name: Split(rows, self._examples(stream, rows))
            for stream, (name, rows) in enumerate(zip(SPLITS, self.num_examples, strict=True))
        }

    def _examples(self, stream: int, rows: int) -> Iterator[Example]:
        """As many processes as there are cores draw; how many that is changes nothing."""
        chunks = [
            (self.difficulty, [self.seed, stream, number], min(_CHUNK_ROWS, rows - start))
            for number, start in enumerate(range(0, rows, _CHUNK_ROWS))
        ]
        draw = joblib.Parallel(n_jobs=-1, return_as="generator")  # in the order of the chunks
        for images, labels in draw(joblib.delayed(_drawn)(*chunk) for chunk in chunks):
            for image, label in zip(images, labels, strict=True):
                yield {"inputs": image.reshape(-1), "label": int(label)}


class LraPathfinder(Builder):
    """Images row by row, and whether one curve joins the two dots (1) or not (0).

    A Config makes images, a ReleaseConfig takes those of the Long Range Arena.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "First version.",
        "2.0.0": "An option for how near ends may be; nearly straight curves are not thrown away. "
        "Released images are as they were.",
    }
    Config = Config
    description = "Two dots, long and short dashed curves: does one curve join the dots?"
    homepage = "https://arxiv.org/abs/2011.04006"
    num_classes = 2

    @property
    def max_length(self) -> int:
        return self.builder_config.size**2

    @property
    def stored_shape(self) -> tuple[int]:
        return (self.max_length,)

    def splits(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Split]:
        del dl_manager  # nothing is downloaded
        config: Config | ReleaseConfig = self.builder_config
        return config.splits(self)


def _drawn(difficulty: Difficulty, seed: list[int], count: int) -> tuple[np.ndarray, list[int]]:
    """The first images [count, size, size] of a stream, and their labels."""
    examples = itertools.islice(difficulty.examples(np.random.default_rng(seed)), count)
    images, labels = zip(*examples, strict=True)
    return np.stack(images), list(labels)
