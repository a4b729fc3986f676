"""The files of `runners.benchmark`: one JSON a run, which it appends rows to and never rewrites."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from runners.benchmark import machine
from runners.core import files
from runners.core.errors import ResultsError
from runners.core.provenance import provenance


class Record:
    """The file of one run; it grows, and is whole at every moment."""

    def __init__(self, folder: Path, kind: str, limits: machine.Limits):
        source = provenance()
        time = source["start_time"].replace("-", "").replace(":", "").partition("+")[0]
        self._path = _free(folder, f"{kind}-{time}")
        self._content = {
            "provenance": source,
            "device": machine.name(),
            "limits": dataclasses.asdict(limits),
            "rows": [],
        }

    def add(self, rows: Iterable[Any]) -> None:
        """Appends rows, which are dataclasses, and writes the file."""
        self._content["rows"] += [dataclasses.asdict(row) for row in rows]
        files.replace(self._path, json.dumps(self._content, indent=1, allow_nan=False).encode())


@dataclasses.dataclass(frozen=True)
class Run:
    """What a file holds.

    Attributes:
      path: the file.
      rows: what was measured.
      device: in words.
      limits: of the machine, at that time.
      provenance: commit, versions, command, time.
    """

    path: Path
    rows: tuple[Any, ...]
    device: str
    limits: machine.Limits
    provenance: dict[str, Any]


def read(folder: Path, kind: str, row: type) -> list[Run]:
    """The runs of a kind in the order of their times; `row` is the dataclass of their rows.

    Raises:
      ResultsError: a record is corrupt.
    """
    paths = sorted(folder.glob(f"{kind}-*.json"), key=lambda path: path.stem)
    return [_read(path, row) for path in paths]


def listing(runs: Sequence[Run]) -> list[str]:
    """Markdown: where the numbers come from."""
    lines = ["## Runs", ""]
    for run in runs:
        source = run.provenance
        commit = f"`{source['git_commit'][:10]}`" if source["git_commit"] else "unknown code"
        changed = " with uncommitted changes" if source["git_dirty"] else ""
        lines.append(
            f"- [{source['start_time']}]({run.path.name}): {commit}{changed}, "
            f"jax {source['versions']['jax']}, {run.limits}; `{source['command']}`"
        )
    return lines


def _free(folder: Path, stem: str) -> Path:
    """A path that no earlier run has taken."""
    names = itertools.chain([stem], (f"{stem}-{i:03d}" for i in itertools.count(2)))
    return next(p for p in (folder / f"{name}.json" for name in names) if not p.exists())


def _read(path: Path, row: type) -> Run:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Run(
            path,
            tuple(row(**fields) for fields in content["rows"]),
            content["device"],
            machine.Limits(**content["limits"]),
            content["provenance"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: no record of a benchmark ({error}); move it away") from error
