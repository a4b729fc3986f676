"""Reference scores that a study keeps beside its trials, as they were computed from its data.

Tables and plots of such a study need no data: `<workdir>/reference_scores.json` maps the
configuration of a task to the scores, slices and notes of its reference predictors.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

import tasks
from runners.core import files, naming
from runners.core.errors import ResultsError

_FILE = "reference_scores.json"


def keep(workdir: Path, task: Mapping[str, Any]) -> None:
    """Adds the reference scores of a task's configuration to those of a study."""
    built = tasks.build(task["name"], **task["options"])
    if not built.stores_references:
        return
    found = {
        "scores": built.reference_scores(),
        "metrics": built.reference_metrics(),
        "notes": built.reference_notes(),
    }
    (workdir / "runs").mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(workdir / "runs" / "lock"):  # several sweeps may share the folder
        kept = read(workdir)
        if kept.get(naming.to_json(task)) == found:
            return
        text = json.dumps(kept | {naming.to_json(task): found}, indent=1, sort_keys=True)
        files.replace(workdir / _FILE, text.encode())


def read(workdir: Path) -> dict[str, dict[str, Any]]:
    """Reference scores by the task's configuration as `naming.to_json` has it.

    Raises:
      ResultsError: the file is damaged.
    """
    path = workdir / _FILE
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise ResultsError(
            f"{str(path)!r} is damaged: move it away and run the study again, which computes it "
            "from the data"
        ) from error
