"""A study from its trials to their records: plan, forecast, data, training, summary."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from runners.core import naming, references, store
from runners.core.errors import ConfigError
from runners.core.identity import population_key, trial_id
from runners.core.naming import model_name
from runners.core.reporter import Reporter
from runners.core.run_options import RunOptions
from runners.study import data, forecast, plan, worker
from runners.study.request import Request
from runners.training import weights
from runners.training.program import TrainProgram

_Configs = Mapping[str, Mapping[str, Any]]  # resolved configurations by trial id


@dataclasses.dataclass(frozen=True)
class _Unrun:
    """Trials that could not run, as the data of their tasks are missing.

    Attributes:
      trials: their configurations by id.
      missing: what is missing and how to provide it, by the task's configuration as JSON.
    """

    trials: _Configs
    missing: Mapping[str, str]


def run(request: Request, trials: Sequence[Mapping[str, Any]], console: Console) -> _Unrun:
    """Plans, forecasts, prepares and trains; a dry run stops after the forecast.

    Raises:
      ConfigError: an architecture that does not take its options, or a damaged file.
      Interrupted: a signal asked for an end; everything done so far is kept.
    """
    workdir, options = request.workdir, request.options
    configs = {trial_id(config): config for config in trials}
    # Every model is built, abstractly, before anything is claimed: what no architecture takes is
    # found here.
    programs = {population_key(config): config for config in configs.values()}
    programs = {key: _program(config, options) for key, config in programs.items()}
    if not options.dry_run:
        store.ensure_writable(workdir)
    work = plan.make(workdir, configs, options)
    _show(console, request, configs, work, programs)
    if options.dry_run:
        return _Unrun({}, {})
    reporter = Reporter(console)
    todo = {trial: config for run in work.runs for trial, config in run.trials.items()}
    missing = data.prepare(todo.values(), reporter)
    described = {naming.to_json(config["task"]): config["task"] for config in todo.values()}
    for text, task in described.items():
        if text not in missing:
            references.keep(workdir, task)
    waiting = {i: c for i, c in todo.items() if naming.to_json(c["task"]) in missing}
    ready = [run for run in work.runs if not waiting.keys() & run.trials.keys()]
    if ready:
        began = time.monotonic()
        # The code that was loaded, whatever is committed meanwhile.
        common = {"study": request.study.name, "provenance": store.provenance()}
        with contextlib.closing(worker.turns(ready, reporter)) as turns:
            for population in turns:
                worker.train(population, workdir, common, reporter, options)
        console.print(f"Trained in {time.monotonic() - began:.0f} s.")
    return _Unrun(waiting, missing)


def _program(config: Mapping[str, Any], options: RunOptions) -> TrainProgram:
    try:
        return TrainProgram(config, accumulate=options.accumulate)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{model_name(config['model'])}: {error}") from error


def _show(
    console: Console,
    request: Request,
    configs: _Configs,
    work: plan.Plan,
    programs: Mapping[str, TrainProgram],
) -> None:
    """Prints the plan and its forecast."""
    todo = sum(len(run.trials) for run in work.runs)
    console.print(
        f"[bold]{request.study.name}[/bold]: {len(configs)} trials, {len(work.done)} done, "
        f"{todo} to run as {len(work.runs)} populations; results in {request.workdir}"
    )
    forecasts = []
    for run in work.runs:
        config = next(iter(run.trials.values()))
        program = programs.get(population_key(config)) or _program(config, request.options)
        forecasts.append(forecast.of(program, len(run.trials)))
    if forecasts:
        forecast.show(console, forecasts, measured=request.options.dry_run)
    if request.options.keep_weights:
        lost = [i for i in work.done if not (request.workdir / weights.FOLDER / i).is_dir()]
        if lost:
            console.print(
                f"{len(lost)} trials are done and their weights were not kept: --rerun trains them "
                "again",
                style="red",
            )


def summarize(
    request: Request, trials: Sequence[Mapping[str, Any]], unrun: _Unrun, console: Console
) -> int:
    """Prints which trials are not done and why; returns the exit code."""
    if request.options.dry_run:
        return 0
    records = {r["id"]: r for r in store.read_all(request.workdir)}
    found = (records.get(trial_id(config)) for config in trials)
    failed = [record for record in found if record and record["status"] == "failed"]
    for record in failed:
        name, seed = model_name(record["config"]["model"]), record["config"]["seed"]
        line = f"failed {name} (seed {seed}): {record['error']}"
        console.print(line, style="red", markup=False)
    for described, reason in unrun.missing.items():
        count = sum(naming.to_json(c["task"]) == described for c in unrun.trials.values())
        line = f"not run, {count} trials: {reason}; then run the same command again"
        console.print(line, style="red", markup=False, soft_wrap=True)
    return 1 if failed or unrun.trials else 0
