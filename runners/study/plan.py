"""Who trains what: pending trials become populations, each held by one process at a time.

`runs/<name>/population.json` is a population's manifest: its trials, and whether it is finished.
Planning happens under one lock of the work directory, so that two sweeps never put a trial into two
populations; training happens under the population's own lock, which the operating system releases
when its holder dies. Whoever finds an unfinished population without a holder takes it over, with
all its trials, so that an interrupted sweep ends with the bits of an undisturbed one.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from runners.core import store
from runners.core.errors import ConfigError
from runners.core.identity import population_key

FINISHED_STATUSES = ("done", "diverged")  # a failed trial is tried again


@dataclasses.dataclass(frozen=True)
class Run:
    """A population's folder and the trials that belong to it, by id."""

    folder: Path
    trials: Mapping[str, Mapping[str, Any]]
    finished: bool = False

    @property
    def name(self) -> str:
        """The name under `runs/`."""
        return self.folder.name

    def lock(self) -> filelock.FileLock:
        """Held while training."""
        return filelock.FileLock(self.folder / "lock")

    def write(self) -> None:
        """Writes the manifest, atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        manifest = {"finished": self.finished, "trials": self.trials}
        temporary = self.folder / f"population.json.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(manifest))
        os.replace(temporary, self.folder / "population.json")

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """The run in a folder; raises ConfigError if its manifest is damaged."""
        path = folder / "population.json"
        try:
            manifest = json.loads(path.read_text())
            return cls(folder, dict(manifest["trials"]), bool(manifest["finished"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} is damaged ({type(error).__name__}): move the folder {folder} away and "
                "run again; its unfinished trials start from the beginning"
            ) from error


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done: the populations to train, and the trials that need nothing."""

    runs: list[Run]
    done: list[str]


def make(
    workdir: Path,
    trials: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    rerun: bool,
    claim: bool,
    population_size: int | None = None,
) -> Plan:
    """Divides trials (id, configuration) into the done and the populations to train.

    Args:
      workdir: the study's work directory.
      trials: what is asked for.
      rerun: ask for trials that are done, too.
      claim: write the manifests; otherwise (a dry run) nothing is written.
      population_size: most trials of a new population; None is no limit.

    Raises:
      ConfigError, ResultsError: a damaged manifest or trial file.
    """
    if not claim:
        return _plan(workdir, trials, rerun, population_size)[0]
    (workdir / "runs").mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(workdir / "runs" / "lock"):
        plan, complete = _plan(workdir, trials, rerun, population_size)
        for run in complete:
            finish(run)
        for run in plan.runs:
            if not (run.folder / "population.json").exists():
                run.write()
        return plan


def _plan(
    workdir: Path,
    trials: Iterable[tuple[str, Mapping[str, Any]]],
    rerun: bool,
    population_size: int | None,
) -> tuple[Plan, list[Run]]:
    """The plan, and the runs whose process died between its last record and its manifest."""
    # Manifests first: a run is finished after its records are written, so that a trial whose run
    # was still unfinished here is claimed, and one whose run was finished has its record below.
    existing = [Run.read(p.parent) for p in sorted((workdir / "runs").glob("*/population.json"))]
    records = {r["id"]: r for r in store.read_all(workdir)}
    unfinished = [run for run in existing if not run.finished]
    complete = [run for run in unfinished if not missing(run, records)]
    owner = {t: run for run in unfinished if run not in complete for t in run.trials}
    resumed: dict[str, Run] = {}
    fresh: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    done = []
    for trial, config in trials:
        if trial in owner:
            resumed[owner[trial].name] = owner[trial]
        elif not rerun and trial in records and _is_finished(records[trial]):
            done.append(trial)
        else:
            fresh.setdefault(population_key(config), []).append((trial, config))
    # Records may outlive their runs' folders: a name is taken as long as one of them bears it.
    taken = {run.name for run in existing} | {r.get("run") for r in records.values()}
    runs = list(resumed.values())
    for members in fresh.values():
        size = population_size or len(members)
        for start in range(0, len(members), size):
            part = dict(members[start : start + size])
            runs.append(Run(workdir / "runs" / _free_name(list(part), taken), part))
    return Plan(runs, done), complete


def _is_finished(record: Mapping[str, Any]) -> bool:
    return record["status"] in FINISHED_STATUSES


def _free_name(ids: Sequence[str], taken: set[str]) -> str:
    base = hashlib.sha256(",".join(sorted(ids)).encode()).hexdigest()[:12]
    attempt = 1
    while (name := base if attempt == 1 else f"{base}.{attempt}") in taken:
        attempt += 1
    return name


def missing(run: Run, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The trials of a run that have no final record by it among the newest records, by id."""

    def written(record: Mapping[str, Any] | None) -> bool:
        return record is not None and record.get("run") == run.name and _is_finished(record)

    return [trial for trial in run.trials if not written(records.get(trial))]


def finish(run: Run) -> None:
    """Marks a run as finished and drops its checkpoints."""
    dataclasses.replace(run, finished=True).write()
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
