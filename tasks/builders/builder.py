"""Base of the builders: rows of bytes with a label, in shards, without TensorFlow."""

import abc
import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from tasks.batch import SPLITS
from tasks.options import whole
from tasks.sources import Report

Example = dict[str, Any]  # "inputs" uint8, "label" int, and "length" where inputs are padded

# The time to read one record grows with the records in its file: 20 µs at 4,096, 150 µs at 48,000.
# And TFDS keeps a shard in memory while it writes it.
_SHARD_ROWS = 4096
_REPORTED_ROWS = 128


def data_directory() -> pathlib.Path:
    """Folder of the data sets: TFDS_DATA_DIR, or else TFDS's own default."""
    default = pathlib.Path.home() / "tensorflow_datasets"
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR") or default).expanduser()


@dataclasses.dataclass(frozen=True)
class Split:
    """So many examples, drawn one after another."""

    size: int
    examples: Iterator[Example]


def check(*, seed: int, num_examples: tuple[int, ...] | None = None) -> None:
    """Raises ValueError unless these options of a configuration are possible."""
    whole("seed", seed, 0)
    if num_examples is None:
        return
    if len(num_examples) != len(SPLITS):
        raise ValueError(f"num_examples={num_examples}: expected those of {', '.join(SPLITS)}")
    for split, size in zip(SPLITS, num_examples, strict=True):
        whole(f"num_examples of {split}", size)


class Builder(tfds.core.ShardBasedBuilder):
    """Base class of the builders.

    Why not a GeneratorBasedBuilder: that one shuffles, for which it needs TensorFlow beyond 1 GB of
    rows. Here rows stay as they come; whoever reads them decides on an order.

    A subclass sets VERSION, RELEASE_NOTES, Config (a dataclass of options whose name tells all of
    them), `description`, `homepage` and `num_classes`, and defines `max_length`, `splits` and,
    where rows are not of varying length, `stored_shape`.

    Attributes:
      report: if set, told now and then how many rows are written, of how many.
    """

    Config: ClassVar[Callable[[], tfds.core.BuilderConfig]]
    description: ClassVar[str]
    homepage: ClassVar[str]
    num_classes: ClassVar[int]
    report: Report | None = None

    def __init__(self, *, config=None, data_dir=None, file_format="array_record", version=None):
        self._sources: dict[str, Sequence[bytes]] = {}
        super().__init__(
            config=config or self.Config(),
            data_dir=data_dir or data_directory(),
            file_format=file_format,
            version=version,
        )

    @property
    @abc.abstractmethod
    def max_length(self) -> int:
        """T: the longest a row can be."""

    @property
    def stored_shape(self) -> tuple[int | None, ...]:
        """Shape of a row's inputs on disk: (None,) when lengths differ, or ending with T."""
        return (None,)

    @abc.abstractmethod
    def splits(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Split]:
        """Contents of each split; splits are drawn in this order, each to its end.

        Raises:
          DataMissingError: there is nothing to make them of.
        """

    def source(self, split: str) -> Sequence[bytes]:
        """The undecoded records of a prepared split, by number."""
        if split not in self._sources:
            self._sources[split] = self.as_data_source(
                split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
        return self._sources[split]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "inputs": tfds.features.Tensor(
                shape=self.stored_shape,
                dtype=np.uint8,
                encoding=tfds.features.Encoding.BYTES,  # the default takes eight bytes for one
            ),
            "label": tfds.features.ClassLabel(num_classes=self.num_classes),
        }
        if len(self.stored_shape) > 1:
            features["length"] = tfds.features.Tensor(shape=self.stored_shape[:-1], dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=tfds.features.FeaturesDict(features),
            homepage=self.homepage,
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager):
        splits = self.splits(dl_manager)
        total, before, shards = sum(split.size for split in splits.values()), 0, {}
        for name, split in splits.items():
            shards[name] = self._shards(name, split, before, total)
            before += split.size
        return shards

    def _shards(
        self, name: str, split: Split, before: int, total: int
    ) -> list[Callable[[], Iterator[tuple[int, Example]]]]:
        """One generator per file. TFDS exhausts them in order, so that they can share a stream.

        before, total: rows of the splits before this one, and of all.
        """
        numbered = enumerate(split.examples)

        def shard(start: int) -> Iterator[tuple[int, Example]]:
            stop = min(start + _SHARD_ROWS, split.size)
            count = start
            for count, (number, example) in enumerate(
                itertools.islice(numbered, stop - start), start + 1
            ):
                yield number, example
                if self.report and (count % _REPORTED_ROWS == 0 or count == split.size):
                    self.report(before + count, total)
            if count < stop:
                raise ValueError(f"{self.info.full_name}: {name} ended after {count} rows")

        return [functools.partial(shard, start) for start in range(0, split.size, _SHARD_ROWS)]

    def _create_builder_config(self, builder_config, version):
        return builder_config  # the inherited one warns of every configuration not in a fixed list

    def _log_download_bytes(self) -> None:
        """Nothing, where TFDS prints; it logs the same."""

    def _log_download_done(self) -> None:
        logging.info("Prepared %s in %s", self.info.full_name, self.data_dir)
