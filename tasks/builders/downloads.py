"""Files that others made: downloaded, or put into a folder by hand.

Below TFDS's data directory, `downloads/manual` is for files that people bring, under the name that
they have where they come from; TFDS looks there before it downloads.
"""

import pathlib

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager, resource

from tasks.sources import DataMissingError

_CONNECT_SECONDS, _ANSWER_SECONDS = 5, 10
_LRA_ADDRESS = "https://storage.googleapis.com/long-range-arena/lra_release.gz"


def _manual_directory(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
    """Folder into which people put files."""
    return pathlib.Path(builder.data_dir_root) / "downloads" / "manual"


def fetched(
    builder: tfds.core.DatasetBuilder, dl_manager: tfds.download.DownloadManager
) -> pathlib.Path:
    """The one file in `builder.url_infos`, downloaded if it is not here.

    Raises:
      DataMissingError: it can neither be found nor downloaded, or its checksum is wrong.
    """
    import requests

    ((address, known),) = builder.url_infos.items()
    by_hand = _manual_directory(builder) / known.filename
    name = resource.get_dl_fname(address, known.checksum)
    before = (pathlib.Path(builder.data_dir_root) / "downloads" / builder.name).rglob(name)
    try:
        if not by_hand.exists() and not any(before):
            # Without a network TFDS tries for minutes, and there is no option to shorten that.
            timeout = (_CONNECT_SECONDS, _ANSWER_SECONDS)
            with requests.get(address, stream=True, timeout=timeout) as response:
                response.raise_for_status()
        return pathlib.Path(dl_manager.download(address))
    except (
        OSError,  # also the errors of requests
        tfds.download.DownloadError,
        download_manager.NonMatchingChecksumError,
    ) as error:
        raise DataMissingError(
            f"{builder.name} needs {known.filename}, {known.size} with SHA-256 "
            f"{known.checksum}: download {address} and put it into {by_hand.parent} "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error


def lra_release(builder: tfds.core.DatasetBuilder, *parts: str) -> pathlib.Path:
    """A file or folder of the LRA release, which was unpacked by hand.

    The archive holds a folder lra_release in a folder lra_release; one of them is enough.

    Raises:
      DataMissingError: it is not there.
    """
    manual = _manual_directory(builder)
    for root in (manual / "lra_release" / "lra_release", manual / "lra_release"):
        if (path := root.joinpath(*parts)).exists():
            return path
    raise DataMissingError(
        f"{builder.name} needs lra_release/lra_release/{'/'.join(parts)}: download {_LRA_ADDRESS} "
        f"(7.7 GB) and unpack it (tar -xzf lra_release.gz) in {manual}"
    )
