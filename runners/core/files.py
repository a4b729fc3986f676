"""Pages and records that are made anew: whole, or as they were."""

import os
import tempfile
from pathlib import Path

from runners.core import store
from runners.core.errors import ResultsError


def replace(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old or the new one, never a part.

    Raises:
      ResultsError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            store.share(temporary)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ResultsError(
            f"cannot write {os.fspath(path)!r}: {error.strerror}; choose another folder "
            "with --workdir"
        ) from error
