"""Do two papers cite one another? Pairs of the ACL anthology network (Radev et al. 2013), as the
Long Range Arena (arXiv 2011.04006) released them.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tasks.builders.builder import Builder, Example, Split
from tasks.builders.downloads import lra_release

_FILES = {"train": "train", "validation": "eval", "test": "test"}
_COLUMNS = 5  # label, two ids, two texts
_LABELS = {b"0.0": 0, b"1.0": 1}


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """Length of the texts.

    Attributes:
      max_length: a longer text is cut behind so many bytes.
    """

    name: str = ""
    max_length: int = 4000

    def __post_init__(self):
        if self.max_length < 1:
            raise ValueError(f"max_length={self.max_length}: expected at least one byte")
        self.name = f"bytes_{self.max_length}"


class LraRetrieval(Builder):
    """Pairs of papers and whether one cites the other: 147,086, 18,090 and 17,437.

    A text is the bytes of its column as they are, as the Long Range Arena reads them: it is written
    as a Python literal, b'…', with line ends and what is not ASCII as escapes.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    Config = Config
    description = "Pairs of papers as bytes; does one cite the other?"
    homepage = "https://github.com/google-research/long-range-arena"
    num_classes = len(_LABELS)

    @property
    def max_length(self) -> int:
        return self.builder_config.max_length

    @property
    def stored_shape(self) -> tuple[int, int]:
        return (2, self.max_length)

    def splits(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Split]:
        del dl_manager  # which offers no way to ask for a single file that was put there by hand
        paths = {
            split: lra_release(self, "tsv_data", f"new_aan_pairs.{name}.tsv")
            for split, name in _FILES.items()
        }
        return {split: Split(_count(path), self._examples(path)) for split, path in paths.items()}

    def _examples(self, path: pathlib.Path) -> Iterator[Example]:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                columns = line.rstrip(b"\r\n").split(b"\t")
                if len(columns) != _COLUMNS or columns[0] not in _LABELS:
                    raise ValueError(
                        f"{path}, line {number}: expected a label 0.0 or 1.0, two ids and two "
                        f"texts between tabs, not {line[:60]!r}"
                    )
                inputs = np.zeros(self.stored_shape, np.uint8)
                texts = [text[: self.max_length] for text in columns[3:]]
                for row, text in zip(inputs, texts, strict=True):
                    row[: len(text)] = np.frombuffer(text, np.uint8)
                yield {
                    "inputs": inputs,
                    "length": np.array([len(text) for text in texts], np.int32),
                    "label": _LABELS[columns[0]],
                }


def _count(path: pathlib.Path) -> int:
    with path.open("rb") as lines:
        return sum(1 for _ in lines)
