"""Text data sets of TensorFlow Datasets, read by row number without TensorFlow."""

import functools
from collections.abc import Iterator
from typing import Any

from tasks.batch import SPLITS, Split
from tasks.sources import DataMissingError

PREFIX = "tfds:"
_FIELDS = ("text", "book_text")


class DataSet:
    """A TFDS data set with a text in every row; its own splits are kept.

    Args:
      name: as TFDS knows it, such as "lm1b", "pg19" or "tiny_shakespeare".

    Raises:
      DataMissingError: TFDS is not installed, has no such data set, or cannot bring it here.
    """

    def __init__(self, name: str):
        try:
            import tensorflow_datasets as tfds
        except ImportError:
            raise DataMissingError(
                f"the corpus '{PREFIX}{name}' needs TFDS: pip install -e '.[data]'"
            ) from None
        try:
            self._builder = tfds.builder(name, file_format="array_record")
        except Exception as error:  # TFDS raises many types
            raise DataMissingError(
                f"TFDS has no data set {name!r} ({' '.join(str(error).split())[:200]}): expected "
                f"one such as {PREFIX}lm1b, {PREFIX}pg19 or {PREFIX}tiny_shakespeare"
            ) from error
        features = self._builder.info.features
        self._field = next((field for field in _FIELDS if field in features), None)
        if self._field is None:
            raise DataMissingError(
                f"the data set {name!r} of TFDS has the features {', '.join(features)}: expected "
                f"one called {' or '.join(_FIELDS)}"
            )
        self.fingerprint = f"{PREFIX}{self._builder.info.full_name}"

    @functools.cached_property
    def _prepared(self) -> Any:
        import tensorflow_datasets as tfds

        try:
            self._builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        except ImportError as error:
            raise DataMissingError(
                f"TFDS needs {error.name} to prepare {self.fingerprint!r}: pip install {error.name}"
            ) from error
        except Exception as error:  # no network, no space, a changed archive
            raise DataMissingError(
                f"the corpus {self.fingerprint!r} cannot be brought here "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            ) from error
        return self._builder

    @property
    def num_bytes(self) -> int:
        """Bytes on disk; 0 before they are here."""
        return int(self._builder.info.dataset_size or 0)

    def documents(self) -> Iterator[tuple[Split, str, bytes]]:
        """Yields (split, name, text) of every row."""
        for split in SPLITS:
            if split in self._prepared.info.splits:
                rows = self._prepared.as_data_source(split)
                for number, row in enumerate(rows):
                    yield split, f"{split}:{number}", row[self._field]
