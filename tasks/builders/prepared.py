"""Data sets that are generated or downloaded once and then read by row number."""

import pathlib

import filelock
import numpy as np
import tensorflow_datasets as tfds

from tasks.builders.builder import Builder
from tasks.sources import Report


def prepare(builder: Builder, report: Report | None = None) -> None:
    """Generates or downloads a data set, unless it is on disk already.

    A file lock lets one process do it while others wait. TFDS writes into a directory with another
    name and renames it at the end, so that what is there is whole.

    Args:
      builder: of the data set.
      report: told, now and then, how many rows are written, of how many.

    Raises:
      tasks.DataMissingError: a file that must be downloaded or provided by hand is not there, or is
        not the right one.
    """
    target = pathlib.Path(builder.data_dir)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{target}.lock"):
            if not target.exists():
                _remove_remains(target)
                tfds.disable_progress_bar()
                builder.report = report
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
                )
    if not builder.info.splits:  # another process, or another builder, has written it
        builder.info.read_from_directory(target)


def _remove_remains(target: pathlib.Path) -> None:
    """Deletes what killed processes left unfinished; whoever holds the lock may."""
    import shutil

    for remains in target.parent.glob(f"incomplete.*_{target.name}"):
        shutil.rmtree(remains)


def num_rows(builder: Builder, split: str) -> int:
    """The rows of a prepared split.

    Raises:
      ValueError: the data set has no such split, or is not prepared.
    """
    splits = builder.info.splits
    if split not in splits:
        raise ValueError(
            f"split={split!r}: {builder.info.full_name} has {', '.join(splits) or 'none yet'}"
            "; call prepare(builder) first, and choose one of its splits"
        )
    return splits[split].num_examples


def rows(builder: Builder, split: str, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of a prepared split.

    TFDS finds the records. They are decoded here, because its own decoding takes 30 µs a row, three
    times as long as finding it; a tf.train.Example holds bytes as they are, and needs 5 µs.

    Args:
      indices: row numbers [n], in any order, repetitions allowed.

    Returns:
      "inputs" [n, ..., T] uint8, with T = builder.max_length and zeros behind what is shorter;
      "label" [n] int32; "length" [n] or [n, 2] int32, if lengths differ.

    Raises:
      ValueError: an index is outside the split, or there is no such split.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    indices = np.asarray(indices)
    size = num_rows(builder, split)
    if indices.size and not 0 <= indices.min() <= indices.max() < size:
        raise ValueError(
            f"indices from {indices.min()} to {indices.max()}: {split!r} of "
            f"{builder.info.full_name} has rows 0 to {size - 1}"
        )
    shape = builder.stored_shape
    varies = shape == (None,)
    found = {
        "inputs": np.zeros((len(indices), *((builder.max_length,) if varies else shape)), np.uint8),
        "label": np.zeros(len(indices), np.int32),
    }
    if varies or "length" in builder.info.features:
        found["length"] = np.zeros((len(indices), *shape[:-1]), np.int32)
    source = builder.source(split)
    for row, index in enumerate(indices.tolist()):  # a list of them would start threads every time
        feature = tf_example_pb2.Example.FromString(source[index]).features.feature
        inputs = np.frombuffer(feature["inputs"].bytes_list.value[0], np.uint8)
        found["label"][row] = feature["label"].int64_list.value[0]
        if varies:
            found["inputs"][row, : len(inputs)] = inputs
            found["length"][row] = len(inputs)
        else:
            found["inputs"][row] = inputs.reshape(shape)
            if "length" in found:
                found["length"][row] = feature["length"].int64_list.value
    return found
