"""The results store: one small JSON file per trial, from which every table and plot is rebuilt.

A record stands in `<workdir>/trials/<id>.json`; a later attempt at the same trial stands beside it
as `<id>.2.json`, `<id>.3.json`, …, and the newest attempt counts. Records are written once,
atomically, and never changed or deleted. At whatever moment a writer is killed, the folder holds
complete records and perhaps a hidden temporary file, which readers ignore.
"""

import contextlib
import errno
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runners.core.errors import ResultsError
from runners.core.hyperparameters import TUNED
from runners.core.provenance import provenance as provenance

Record = dict[str, Any]

_STATUSES = ("done", "diverged", "failed")

_NAME = re.compile(r"(?P<id>[A-Za-z0-9_-]+)(\.(?P<attempt>[1-9][0-9]*))?\.json")
_NUMBER = (int, float)
_OPTIONAL_NUMBER = (int, float, type(None))

# Every field of a record by its dotted path, with the types JSON may give it. A trial that failed
# early knows few of its numbers: those are null.
_FIELDS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "study": (str,),
    "config": (dict,),
    "config.seed": (int,),
    "config.model": (dict,),
    "config.model.mixer": (str, list),
    "config.model.d_model": (int,),
    "config.model.num_layers": (int,),
    "config.task": (dict,),
    "config.task.name": (str,),
    "config.optimizer": (dict,),
    **{f"config.{h.key}": _NUMBER for h in TUNED},
    "status": (str,),
    "error": (str, type(None)),
    "metrics": (dict,),
    "curve": (dict,),
    "parameters": _OPTIONAL_NUMBER,
    "state_bytes": _OPTIONAL_NUMBER,
    "flops_per_step": _OPTIONAL_NUMBER,
    "steps": _OPTIONAL_NUMBER,
    "examples_per_second": _OPTIONAL_NUMBER,
    "compile_seconds": _OPTIONAL_NUMBER,
    "train_seconds": _OPTIONAL_NUMBER,
    "peak_memory_bytes": _OPTIONAL_NUMBER,
    "provenance": (dict,),
}

# What filesystems without hard links answer to os.link (FAT, many network and FUSE mounts).
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def ensure_writable(workdir: str | os.PathLike[str]) -> None:
    """Creates the folder for trial files; raises ResultsError where that or writing fails."""
    folder = Path(workdir) / "trials"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".tmp"):
            pass  # the only proof: permission bits say nothing of mounts, quotas, or root
    except OSError as error:
        raise ResultsError(
            f"cannot write to {os.fspath(workdir)!r}: {error.strerror}; choose another folder "
            "with --workdir"
        ) from error


def write(workdir: str | os.PathLike[str], record: Record) -> Path:
    """Writes a record as the next attempt at its trial and returns its path; never overwrites.

    Numbers that JSON does not have (NaN, ±inf) become null; NumPy and JAX scalars and arrays become
    plain ones.

    Raises:
      ResultsError: the record lacks a field or holds a wrong type.
    """
    record = _plain(record)
    flaw = _flaw(record)
    if flaw:
        raise ResultsError(f"trial {record.get('id')!r} cannot be recorded: {flaw}")
    folder = Path(workdir) / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with _temporary_file(folder, text) as temporary:
        attempt = max((n for n, _ in _attempts(folder).get(record["id"], [])), default=0) + 1
        while True:
            suffix = "" if attempt == 1 else f".{attempt}"
            path = folder / f"{record['id']}{suffix}.json"
            if _place(temporary, path):
                _sync_folder(folder)
                return path
            attempt += 1  # another process took this number first


def read_all(workdir: str | os.PathLike[str]) -> list[Record]:
    """The newest attempt at every trial, sorted by id; empty where nothing was run yet.

    Raises:
      ResultsError: a trial file is corrupt.
    """
    attempts = _attempts(Path(workdir) / "trials")
    return [_read(max(paths)[1], trial_id) for trial_id, paths in sorted(attempts.items())]


def latest(workdir: str | os.PathLike[str], trial_id: str) -> Record | None:
    """The newest attempt at one trial, or None; raises ResultsError if that file is corrupt."""
    paths = _attempts(Path(workdir) / "trials").get(trial_id)
    return _read(max(paths)[1], trial_id) if paths else None


def _attempts(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Every trial's (attempt number, path) by trial id."""
    found: dict[str, list[tuple[int, Path]]] = {}
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return found
    except OSError as error:
        raise ResultsError(f"cannot read {os.fspath(folder)!r}: {error.strerror}") from error
    for name in names:
        if name.startswith(".") or not name.endswith(".json"):
            continue  # temporary files, and what a person moved away
        match = _NAME.fullmatch(name)
        if not match:
            raise _corrupt(folder / name, "the name is not <id>.json or <id>.<attempt>.json")
        attempt = int(match["attempt"] or 1)
        found.setdefault(match["id"], []).append((attempt, folder / name))
    return found


def _read(path: Path, trial_id: str) -> Record:
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ResultsError(f"cannot read {os.fspath(path)!r}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise _corrupt(
            path, f"not valid JSON (line {error.lineno}: {error.msg.lower()})"
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, NaN, or nested without end
        raise _corrupt(path, f"not valid JSON ({error})") from error
    flaw = _flaw(record)
    if not flaw and record["id"] != trial_id:
        flaw = f"its id is {record['id']!r}, which is not that of its name"
    if flaw:
        raise _corrupt(path, flaw)
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


def _corrupt(path: Path, flaw: str) -> ResultsError:
    flaw = " ".join(flaw.split())
    return ResultsError(
        f"{os.fspath(path)}: {flaw}; move it away and run again; a trial without a record is rerun"
    )


def _flaw(record: Any) -> str | None:
    """The flaw of a record in words, or None."""
    if not isinstance(record, dict):
        return f"expected an object, not {type(record).__name__}"
    for field, types in _FIELDS.items():
        value: Any = record
        for key in field.split("."):
            if key not in value:
                return f"field {field!r} is missing"
            value = value[key]
        if not isinstance(value, types) or isinstance(value, bool):
            expected = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            return f"field {field!r} is {_short(value)}, expected {expected}"
    if record["status"] not in _STATUSES:
        return f"status is {_short(record['status'])}, expected one of {', '.join(_STATUSES)}"
    if not _NAME.fullmatch(f"{record['id']}.json") or "." in record["id"]:
        return f"id is {_short(record['id'])}, expected letters, digits, - and _"
    for key, value in record["metrics"].items():
        if not _is_number_or_none(value):
            return f"metric {key!r} is {_short(value)}, expected a number or null"
    steps = record["curve"].get("step", [])
    for key, values in record["curve"].items():
        if not isinstance(values, list) or not all(map(_is_number_or_none, values)):
            return f"curve {key!r} is {_short(values)}, expected a list of numbers"
        if len(values) != len(steps):
            return f"curve {key!r} has {len(values)} values for {len(steps)} steps"
    if None in steps:
        return "curve 'step' holds null, expected numbers"
    return None


def _is_number_or_none(value: Any) -> bool:
    return isinstance(value, _OPTIONAL_NUMBER) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _plain(value: Any) -> Any:
    """The value in the types JSON has."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):  # NumPy and JAX scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def _temporary_file(folder: Path, text: str) -> Iterator[str]:
    """A hidden file, synced to disk, with a unique name; deleted at the end."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".tmp")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        share(name)
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def share(path: str | os.PathLike[str]) -> None:
    """Gives a temporary file, made for its owner alone, the permissions of an ordinary one."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def _place(temporary: str, path: Path) -> bool:
    """Gives the temporary file its final name; False if that name is taken.

    A hard link does both at once, where rename would overwrite. On filesystems without hard links
    the name is claimed first by creating a hidden file that only one process can create; a writer
    killed while it holds the claim costs no more than an attempt number.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
    else:
        return True
    claim = path.with_name(f".{path.name}.claim")
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    try:
        if path.exists():
            return False
        os.rename(temporary, path)
        return True
    finally:
        os.unlink(claim)


def _sync_folder(folder: Path) -> None:
    """Syncs a folder's names to disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
