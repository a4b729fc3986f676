"""Runs the populations of a plan, one after the other, beside other processes that do the same."""

import dataclasses
import shutil
import time
import traceback
from pathlib import Path
from typing import Any

import filelock

from runners import plan, results
from runners.config import ConfigError
from runners.labels import mixer_name
from runners.population import Interrupted, Population
from runners.progress import Reporter

POLL_SECONDS = 2.0  # between two looks at a population that another process is training


def run_all(
    workdir: Path, study: str, runs: list[plan.Run], reporter: Reporter, checkpoint_seconds: float
) -> None:
    """Trains every run to its end, here or by waiting for the process that holds it.

    Raises:
      Interrupted: a signal asked for an end; everything done so far is kept.
      ConfigError: a damaged checkpoint.
    """
    waiting, announced = list(runs), set()
    while waiting:
        busy = []
        for run in waiting:
            try:
                with run.lock().acquire(blocking=False):
                    if not plan.Run.read(run.folder).finished:
                        _run(workdir, study, run, reporter, checkpoint_seconds)
            except filelock.Timeout:
                busy.append(run)
                if run.name not in announced:
                    announced.add(run.name)
                    reporter.line(f"  {run.name}: another process is training it")
        if len(busy) == len(waiting):
            time.sleep(POLL_SECONDS)
        waiting = busy


def _run(
    workdir: Path, study: str, run: plan.Run, reporter: Reporter, checkpoint_seconds: float
) -> None:
    todo = plan.missing(workdir, run)
    if todo:
        origin = results.provenance()
        ids, configs = list(run.trials), list(run.trials.values())
        try:
            population = Population(configs, ids, run.folder, reporter, checkpoint_seconds)
            measured = population.run()
        except (ConfigError, Interrupted):
            raise
        except (
            Exception
        ) as error:  # whatever breaks one population must not take the others with it
            (run.folder / "error.txt").write_text(traceback.format_exc())
            reporter.line(f"  {run.name} failed: {error}; see {run.folder / 'error.txt'}", "red")
            measured = [_failure(error)] * len(ids)
        for trial, record in zip(ids, measured, strict=True):
            if trial in todo:
                identity = {"id": trial, "study": study, "run": run.name}
                record = {**identity, "config": run.trials[trial], **record, "provenance": origin}
                results.write(workdir, record)
        _report(measured, run, reporter)
    dataclasses.replace(run, finished=True).write()
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)


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
    done = [r for r in measured if r["status"] == "done"]
    if not done:
        return
    seconds = sum(r["train_seconds"] for r in measured)
    model = next(iter(run.trials.values()))["model"]
    counts = ", ".join(
        f"{n} {status}"
        for status in ("done", "diverged")
        if (n := sum(r["status"] == status for r in measured))
    )
    reporter.line(
        f"  {mixer_name(model['mixer'])} d{model['d_model']}: {counts}, "
        f"{max(r['steps'] for r in measured)} steps, "
        f"compiled in {done[0]['compile_seconds']:.1f} s, trained in {seconds:.1f} s"
    )
