"""CIFAR-10 (Krizhevsky 2009) in grey, pixel by pixel, as in the Long Range Arena (2011.04006)."""

import dataclasses
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tasks.builders.builder import Builder, Example, Split, check
from tasks.builders.downloads import fetched

# From TFDS's cifar10, which itself cannot be used: it unpacks with TensorFlow.
_ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_ARCHIVE = tfds.download.checksums.UrlInfo(
    filename="cifar-10-binary.tar.gz",
    size=tfds.core.utils.Size(170_052_171),
    checksum="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
_FILES = {
    "train": [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)],
    "test": ["cifar-10-batches-bin/test_batch.bin"],
}
_PIXELS = 32 * 32


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """Choice of the images that are held out.

    Attributes:
      num_validation: training images held out.
      seed: which ones.
    """

    name: str = ""
    num_validation: int = 5000
    seed: int = 0

    def __post_init__(self):
        check(seed=self.seed)
        if self.num_validation < 1:
            raise ValueError(f"num_validation={self.num_validation}: expected at least one image")
        self.name = f"validation_{self.num_validation}-seed_{self.seed}"


class LraImage(Builder):
    """Images row by row, and which of ten things they show: 45,000, 5,000 and 10,000."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    Config = Config
    url_infos: ClassVar[dict[str, Any]] = {_ADDRESS: _ARCHIVE}
    description = "CIFAR-10 in 256 shades of grey, pixel by pixel."
    homepage = "https://www.cs.toronto.edu/~kriz/cifar.html"
    num_classes = 10
    max_length = _PIXELS
    stored_shape = (_PIXELS,)

    def splits(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Split]:
        config = self.builder_config
        found = _records(fetched(self, dl_manager))
        size = len(found["train"])
        if config.num_validation >= size:
            raise ValueError(
                f"num_validation={config.num_validation}: expected fewer than the {size} images to "
                "train on"
            )
        order = np.random.default_rng([config.seed]).permutation(size)
        held_out, rest = np.split(order, [config.num_validation])
        records = {
            "train": found["train"][np.sort(rest)],
            "validation": found["train"][np.sort(held_out)],
            "test": found["test"],
        }
        return {name: Split(len(of), _examples(of)) for name, of in records.items()}


def grey(colours: np.ndarray) -> np.ndarray:
    """Luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, rounded; [..., 3, pixels] uint8."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -2, 0)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


def _records(archive: str) -> dict[str, np.ndarray]:
    """By split, [images, 1 + 3 · 1024] uint8: the label, then red, green and blue, row by row."""
    with tarfile.open(archive, "r:gz") as tar:
        files = {name: tar.extractfile(name).read() for of in _FILES.values() for name in of}
    return {
        split: np.frombuffer(b"".join(files[name] for name in names), np.uint8).reshape(
            -1, 1 + 3 * _PIXELS
        )
        for split, names in _FILES.items()
    }


def _examples(records: np.ndarray) -> Iterator[Example]:
    for record in records:
        yield {"inputs": grey(record[1:].reshape(3, _PIXELS)), "label": int(record[0])}
