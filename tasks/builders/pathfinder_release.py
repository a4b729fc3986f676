"""The images of Pathfinder that the Long Range Arena released (arXiv 2011.04006)."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from tasks.batch import SPLITS
from tasks.builders.builder import Builder, Example, Split, check
from tasks.builders.downloads import lra_release
from tasks.generators.pathfinder import RELEASED_SIZES
from tasks.sources import DataMissingError

_DIFFICULTIES = ("curv_baseline", "curv_contour_length_9", "curv_contour_length_14")


@dataclasses.dataclass(eq=False)
class ReleaseConfig(tfds.core.BuilderConfig):
    """The original images, of which there are 200,000.

    Attributes:
      size: width and height; 32, or 128 for Path-X.
      difficulty: the folder; the published figures are of `curv_contour_length_14`.
      num_examples: of train, validation and test; at most as many as there are.
      seed: of the order in which the images go into the splits.
    """

    name: str = ""
    size: int = 32
    difficulty: str = "curv_contour_length_14"
    num_examples: tuple[int, int, int] = (160_000, 20_000, 20_000)
    seed: int = 0

    def __post_init__(self):
        check(seed=self.seed, num_examples=self.num_examples)
        if self.size not in RELEASED_SIZES:
            raise ValueError(
                f"size={self.size}: expected one of {RELEASED_SIZES}, which were released"
            )
        if self.difficulty not in _DIFFICULTIES:
            raise ValueError(f"difficulty={self.difficulty!r}: expected one of {_DIFFICULTIES}")
        rows = "rows_{}_{}_{}".format(*self.num_examples)
        self.name = f"release-size_{self.size}-{self.difficulty}-{rows}-seed_{self.seed}"

    def splits(self, builder: Builder) -> Mapping[str, Split]:
        """The images in a random order, divided.

        Raises:
          DataMissingError: the release is not there.
          ValueError: it has fewer images than num_examples, or a file is not what it should be.
        """
        folder = lra_release(builder, f"pathfinder{self.size}", self.difficulty)
        images = _images(folder)
        if sum(self.num_examples) > len(images):
            raise ValueError(
                f"num_examples={self.num_examples}: {folder} has {len(images)} images; ask for no "
                "more than these"
            )
        order = np.random.default_rng([self.seed]).permutation(len(images))
        parts = np.split(order, np.cumsum(self.num_examples))[: len(SPLITS)]
        return {
            name: Split(len(part), self._examples([images[i] for i in part]))
            for name, part in zip(SPLITS, parts, strict=True)
        }

    def _examples(self, images: list[tuple[pathlib.Path, int]]) -> Iterator[Example]:
        from PIL import Image

        for path, label in images:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L"))
            if pixels.shape != (self.size, self.size):
                raise ValueError(
                    f"{path}: expected {self.size} × {self.size} pixels, not {pixels.shape}; "
                    "unpack the release again"
                )
            yield {"inputs": pixels.reshape(-1), "label": label}


def _images(folder: pathlib.Path) -> list[tuple[pathlib.Path, int]]:
    """Files and labels, in the order of the metadata: text files called 0.npy, 1.npy, …

    A line is "imgs/<k> <file> <number> <label> …". One of the released images is an empty file;
    such are left out.

    Raises:
      DataMissingError: a file is missing.
      ValueError: a line is not what it should be.
    """
    found = []
    for metadata in sorted((folder / "metadata").glob("*.npy"), key=lambda path: int(path.stem)):
        for number, line in enumerate(metadata.read_text(encoding="utf-8").splitlines(), 1):
            columns = line.split()
            if len(columns) < 4 or columns[3] not in ("0", "1"):
                raise ValueError(
                    f"{metadata}, line {number}: expected a folder, a file, a number and a label "
                    f"0 or 1, not {line[:60]!r}; unpack the release again"
                )
            path = folder / columns[0] / columns[1]
            if not path.exists():
                raise DataMissingError(f"{path} is missing: unpack the LRA release again")
            if path.stat().st_size:
                found.append((path, int(columns[3])))
    if not found:
        raise DataMissingError(f"{folder} lists no images: unpack the LRA release again")
    return found
