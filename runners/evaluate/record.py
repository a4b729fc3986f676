"""Scores of a study's trials in `<workdir>/evaluate.json`, each with the settings behind it.

What was measured stays there: a trial is not evaluated on the same examples twice.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import filelock

from runners.core import files
from runners.core.errors import ResultsError
from runners.evaluate.cells import Cell, Settings

NAME = "evaluate.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Scores of one trial on one probe.

    Attributes:
      trial: its id.
      probe: its name.
      settings: the fields of a `Settings`.
      cells: the scores.
      provenance: of the measurement.
    """

    trial: str
    probe: str
    settings: dict[str, Any]
    cells: list[Cell]
    provenance: dict[str, Any]


def find(workdir: Path, trial: str, probe: str, settings: Settings) -> Entry | None:
    """The entry of a trial for these examples; None if it was not measured.

    Raises:
      ResultsError: the file is damaged.
    """
    return _read(workdir).get(_key(trial, probe, dataclasses.asdict(settings)))


def keep(workdir: Path, entry: Entry) -> None:
    """Adds an entry to those of a study."""
    (workdir / "runs").mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(workdir / "runs" / "lock"):  # several processes may share the folder
        entries = _read(workdir) | {_key(entry.trial, entry.probe, entry.settings): entry}
        text = json.dumps([dataclasses.asdict(e) for e in entries.values()], indent=1)
        files.replace(workdir / NAME, text.encode())


def _key(trial: str, probe: str, settings: dict[str, Any]) -> str:
    return json.dumps([trial, probe, settings], sort_keys=True)


def _read(workdir: Path) -> dict[str, Entry]:
    path = workdir / NAME
    try:
        found = json.loads(path.read_text())
        entries = [Entry(**e | {"cells": [Cell(**cell) for cell in e["cells"]]}) for e in found]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsError(
            f"{str(path)!r} is damaged: move it away and run the same command again"
        ) from error
    return {_key(entry.trial, entry.probe, entry.settings): entry for entry in entries}
