"""Worker: trains the populations of a plan in turn, beside other processes that do the same."""

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from runners.core import store
from runners.core.errors import ConfigError
from runners.core.naming import model_name
from runners.core.reporter import Reporter
from runners.core.run_options import RunOptions
from runners.core.signals import Interrupted
from runners.study import plan
from runners.training import loop

_POLL_SECONDS = 2.0  # between two looks at a population that another process is training
_UNKNOWN_AFTER_FAILURE = (
    "parameters",
    "state_bytes",
    "flops_per_step",
    "steps",
    "examples_per_second",
    "compile_seconds",
    "train_seconds",
    "peak_memory_bytes",
)


def turns(runs: Sequence[plan.PopulationRun], reporter: Reporter) -> Iterator[plan.PopulationRun]:
    """Yields every unfinished population while this process holds its lock.

    Those that other processes hold come last, when these have finished them or died.
    """
    waiting, announced = list(runs), set()
    while waiting:
        busy = []
        for run in waiting:
            try:
                with run.lock().acquire(blocking=False):
                    if not plan.PopulationRun.read(run.folder).finished:
                        yield run
            except filelock.Timeout:
                busy.append(run)
                if run.name not in announced:
                    announced.add(run.name)
                    reporter.line(f"  {run.name}: another process is training it")
        if len(busy) == len(waiting):
            time.sleep(_POLL_SECONDS)
        waiting = busy


def train(
    run: plan.PopulationRun,
    workdir: Path,
    common: Mapping[str, Any],
    reporter: Reporter,
    options: RunOptions,
) -> None:
    """Trains a population to its end and writes the records of its trials.

    Args:
      run: the population, whose lock is held.
      workdir: of the study.
      common: fields that all records share: "study" and "provenance".
      reporter: shows the progress.
      options: of the run.

    Raises:
      Interrupted: a signal asked for an end; everything done so far is kept.
      ConfigError: a damaged checkpoint.
      OSError: nothing can be written; everything written so far is kept.
    """
    records = {r["id"]: r for r in store.read_all(workdir)}
    todo = plan.missing(run, records)
    try:
        outcome = loop.train(run.trials, workdir, run.folder, reporter, options)
    except (ConfigError, Interrupted, OSError):
        raise
    except Exception as error:  # whatever breaks one population must not take the others with it
        (run.folder / "error.txt").write_text(traceback.format_exc())
        reporter.line(f"  {run.name} failed: {error}; see {run.folder / 'error.txt'}", "red")
        outcome = loop.Outcome([_failure(error)] * len(run.trials))
    for (trial, config), record in zip(run.trials.items(), outcome.records, strict=True):
        if trial in todo:
            identity = {"id": trial, "run": run.name, "config": config}
            store.write(workdir, dict(common) | identity | record)
    if all(record["status"] in plan.FINISHED_STATUSES for record in outcome.records):
        reporter.line(_summary(run, outcome.records))
        plan.finish(run)  # a failed run stays unfinished: its checkpoints serve the next attempt
    if outcome.interrupted_by is not None:
        raise Interrupted(outcome.interrupted_by)


def _failure(error: Exception) -> dict[str, Any]:
    """The measured part of a failed trial's record."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    known = {"status": "failed", "error": text, "metrics": {}, "curve": {}}
    return known | dict.fromkeys(_UNKNOWN_AFTER_FAILURE)


def _summary(run: plan.PopulationRun, records: Sequence[Mapping[str, Any]]) -> str:
    """A finished population in one line."""
    seconds = sum(r["train_seconds"] for r in records)
    model = next(iter(run.trials.values()))["model"]
    counts = ", ".join(
        f"{n} {status}"
        for status in plan.FINISHED_STATUSES
        if (n := sum(r["status"] == status for r in records))
    )
    return (
        f"  {model_name(model)} d{model['d_model']}: {counts}, "
        f"{max(r['steps'] for r in records)} steps, "
        f"compiled in {records[0]['compile_seconds']:.1f} s, trained in {seconds:.1f} s"
    )
