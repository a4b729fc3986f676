"""Runs the populations of a plan, one after the other, beside other processes that do the same."""

import time
import traceback
from pathlib import Path
from typing import Any

import filelock

from runners.core import store
from runners.core.errors import ConfigError
from runners.core.naming import model_name
from runners.core.progress import Reporter
from runners.core.signals import Interrupted
from runners.study import plan
from runners.training.loop import Population

POLL_SECONDS = 2.0  # between two looks at a population that another process is training


def run_all(
    workdir: Path,
    study: str,
    runs: list[plan.Run],
    reporter: Reporter,
    checkpoint_seconds: float,
    keep_weights: bool = False,
    stream: bool = False,
) -> None:
    """Trains every run to its end, here or by waiting for the process that holds it.

    keep_weights: what the trials have learned goes to `<workdir>/weights`.
    stream: stored training rows are read while training, even if they fit on the device.

    Raises:
      Interrupted: a signal asked for an end; everything done so far is kept.
      ConfigError: a damaged checkpoint.
      OSError: nothing can be written; everything written so far is kept.
    """
    origin = store.provenance()  # of the code that was loaded, whatever is committed meanwhile
    waiting, announced = list(runs), set()
    while waiting:
        busy = []
        for run in waiting:
            try:
                with run.lock().acquire(blocking=False):
                    if not plan.Run.read(run.folder).finished:
                        _run(
                            workdir,
                            {"study": study, "provenance": origin},
                            run,
                            reporter,
                            checkpoint_seconds,
                            keep_weights,
                            stream,
                        )
            except filelock.Timeout:
                busy.append(run)
                if run.name not in announced:
                    announced.add(run.name)
                    reporter.line(f"  {run.name}: another process is training it")
        if len(busy) == len(waiting):
            time.sleep(POLL_SECONDS)
        waiting = busy


def _run(
    workdir: Path,
    common: dict[str, Any],
    run: plan.Run,
    reporter: Reporter,
    checkpoint_seconds: float,
    keep_weights: bool,
    stream: bool,
) -> None:
    records = {r["id"]: r for r in store.read_all(workdir)}
    todo, signal_number = plan.missing(run, records), None
    ids, configs = list(run.trials), list(run.trials.values())
    try:
        keep = workdir if keep_weights else None
        population = Population(
            configs, ids, run.folder, reporter, checkpoint_seconds, keep, stream
        )
        measured = population.run()
        signal_number = population.interrupted_by
    except (ConfigError, Interrupted, OSError):
        raise
    except Exception as error:  # whatever breaks one population must not take the others with it
        (run.folder / "error.txt").write_text(traceback.format_exc())
        reporter.line(f"  {run.name} failed: {error}; see {run.folder / 'error.txt'}", "red")
        measured = [_failure(error)] * len(ids)
    for trial, record in zip(ids, measured, strict=True):
        if trial in todo:
            identity = {"id": trial, "run": run.name, "config": run.trials[trial]}
            store.write(workdir, common | identity | record)
    if all(record["status"] in plan.FINISHED_STATUSES for record in measured):
        _report(measured, run, reporter)
        plan.finish(run)  # a failed run stays unfinished: its checkpoints serve the next attempt
    if signal_number is not None:
        raise Interrupted(signal_number)


def _failure(error: Exception) -> dict[str, Any]:
    unknown = (
        "parameters",
        "state_bytes",
        "flops_per_step",
        "steps",
        "examples_per_second",
        "compile_seconds",
        "train_seconds",
        "peak_memory_bytes",
    )
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return {"status": "failed", "error": text, "metrics": {}, "curve": {}} | dict.fromkeys(unknown)


def _report(measured: list[dict[str, Any]], run: plan.Run, reporter: Reporter) -> None:
    seconds = sum(r["train_seconds"] for r in measured)
    model = next(iter(run.trials.values()))["model"]
    counts = ", ".join(
        f"{n} {status}"
        for status in plan.FINISHED_STATUSES
        if (n := sum(r["status"] == status for r in measured))
    )
    reporter.line(
        f"  {model_name(model)} d{model['d_model']}: {counts}, "
        f"{max(r['steps'] for r in measured)} steps, "
        f"compiled in {measured[0]['compile_seconds']:.1f} s, trained in {seconds:.1f} s"
    )
