"""Movie reviews as bytes (Maas et al. 2011), as the Long Range Arena (arXiv 2011.04006) has them.

The Long Range Arena validates on the test reviews; here a tenth of the training reviews is held out
for that.
"""

import collections
import dataclasses
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tasks.builders.builder import Builder, Example, Split, check
from tasks.builders.downloads import fetched

# From TFDS's imdb_reviews, which itself cannot be used: it unpacks with TensorFlow.
_ADDRESS = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
_ARCHIVE = tfds.download.checksums.UrlInfo(
    filename="aclImdb_v1.tar.gz",
    size=tfds.core.utils.Size(84_125_825),
    checksum="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
_MEMBER = re.compile(r"aclImdb/(train|test)/(neg|pos)/[^/]+\.txt")
_LABELS = ("neg", "pos")

_Review = tuple[bytes, int]  # text and label


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """Length of the reviews, and the choice of those that are held out.

    Attributes:
      max_length: a longer review is cut behind so many bytes.
      num_validation: training reviews held out, half of them of each label.
      seed: which ones.
    """

    name: str = ""
    max_length: int = 4096
    num_validation: int = 2500
    seed: int = 0

    def __post_init__(self):
        check(seed=self.seed)
        if self.max_length < 1:
            raise ValueError(f"max_length={self.max_length}: expected at least one byte")
        if self.num_validation < 2 or self.num_validation % 2:
            raise ValueError(
                f"num_validation={self.num_validation}: expected an even number, half of each label"
            )
        self.name = f"bytes_{self.max_length}-validation_{self.num_validation}-seed_{self.seed}"


class LraText(Builder):
    """Reviews and whether they are positive (1) or negative (0): 22,500, 2,500 and 25,000.

    A text is the file without white space at its ends, as in TFDS's imdb_reviews. Held out are only
    reviews whose text occurs once in training and never in test.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    Config = Config
    url_infos: ClassVar[dict[str, Any]] = {_ADDRESS: _ARCHIVE}
    description = "IMDB movie reviews as bytes; positive or negative?"
    homepage = "http://ai.stanford.edu/~amaas/data/sentiment/"
    num_classes = len(_LABELS)

    @property
    def max_length(self) -> int:
        return self.builder_config.max_length

    def splits(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Split]:
        config = self.builder_config
        found = _reviews(fetched(self, dl_manager))
        held_out = _held_out(found, config.num_validation, np.random.default_rng([config.seed]))
        reviews = {
            "train": [r for i, r in enumerate(found["train"]) if i not in held_out],
            "validation": [found["train"][i] for i in sorted(held_out)],
            "test": found["test"],
        }
        return {name: Split(len(of), self._examples(of)) for name, of in reviews.items()}

    def _examples(self, reviews: list[_Review]) -> Iterator[Example]:
        for text, label in reviews:
            yield {"inputs": np.frombuffer(text[: self.max_length], np.uint8), "label": label}


def _reviews(archive: str) -> dict[str, list[_Review]]:
    """The labelled reviews by split, in the order of the names of their files."""
    found: dict[str, dict[str, _Review]] = {"train": {}, "test": {}}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if match := _MEMBER.fullmatch(member.name):
                split, label = match.groups()
                text = tar.extractfile(member).read().strip()
                found[split][member.name] = text, _LABELS.index(label)
    return {split: [of[name] for name in sorted(of)] for split, of in found.items()}


def _held_out(
    reviews: dict[str, list[_Review]], count: int, rng: np.random.Generator
) -> frozenset[int]:
    """Places of the training reviews to validate on: as many of one label as of the other."""
    often = collections.Counter(text for split in reviews.values() for text, _ in split)
    chosen: list[int] = []
    for label in range(len(_LABELS)):
        unique = [
            i for i, (text, of) in enumerate(reviews["train"]) if of == label and often[text] == 1
        ]
        if len(unique) < count // 2:
            raise ValueError(
                f"num_validation={count}: of {_LABELS[label]!r} there are {len(unique)} reviews "
                "whose text occurs once; hold out fewer"
            )
        chosen += rng.choice(unique, count // 2, replace=False).tolist()
    return frozenset(chosen)
