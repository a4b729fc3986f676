"""`python -m runners.sweep`: every trial of a study, as populations, ending in its leaderboard.

    python -m runners.sweep --config mqar.py
    python -m runners.sweep --config mqar.py:figure2 --only mixer=gla,mamba --dry_run
    python -m runners.sweep --config mqar.py --config.model.d_model=128 --workdir results/wide

Exit codes: 0 all done, 1 something failed, 2 the request was wrong. A sweep that was killed goes on
where it stood when the same command is given again (a rerun, when it is given without --rerun);
several sweeps may share one work directory.
"""

import argparse
import ast
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from runners.core import cli, naming, store
from runners.core.errors import ConfigError, nearest
from runners.core.identity import leaves, population_key, trial_id
from runners.core.naming import mixer_name, model_name
from runners.core.progress import Reporter
from runners.leaderboard import build, tables
from runners.study import data, forecast, plan, schema, worker
from runners.training import weights
from runners.training.program import Program


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    request = cli.parse("sweep", "Runs every trial of a study.", argv, add_only)
    trials = select(request.study.trials(), request.options.only)
    return run(request, [(trial_id(config), config) for config in trials])


def add_only(parser: argparse.ArgumentParser) -> None:
    """Gives a command the option that `select` reads."""
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KEY=VALUE[,VALUE]",
        help="keep the trials with these values, such as mixer=gla,s4d; may be repeated",
    )


def select(trials: list[dict[str, Any]], only: Sequence[str]) -> list[dict[str, Any]]:
    """The trials that match every `KEY=VALUE[,VALUE]`; KEY is a configuration key or its end.

    Raises:
      ConfigError: an unknown key, or a value that no trial has.
    """
    for condition in only:
        name, equals, wanted = condition.partition("=")
        if not equals:
            raise ConfigError(f"--only {condition}: expected KEY=VALUE, such as mixer=gla")
        known = {key for trial in trials for key, _ in _leaves(trial)}
        keys = [key for key in known if f".{key}".endswith(f".{name}")]
        if not keys:
            near = nearest(name, {key.rpartition(".")[2] for key in known})
            raise ConfigError(f"--only {condition}: no configuration key {name!r}; {near}")
        values = {_text(v) for t in trials for k, v in _leaves(t) if k in keys}
        chosen = {_canonical(value) for value in wanted.split(",")}
        for value in chosen - values:
            raise ConfigError(
                f"--only {condition}: no trial has {name} {value!r}; {nearest(value, values)}"
            )
        trials = [t for t in trials if any(k in keys and _text(v) in chosen for k, v in _leaves(t))]
    return trials


def _leaves(trial: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return leaves(schema.with_defaults(trial))


def _canonical(text: str) -> str:
    """A number as Python writes it, so that 1e-3 finds 0.001."""
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def _text(value: Any) -> str:
    """A value as a person writes it after --only."""
    is_pattern = isinstance(value, list) and all(isinstance(v, str) for v in value)
    return mixer_name(value) if is_pattern else str(value)


def run(request: cli.Request, trials: list[tuple[str, dict[str, Any]]]) -> int:
    """Plans, trains and shows; returns the exit code."""
    options, workdir = request.options, request.workdir
    console = cli.console()
    # Every model is built, abstractly, before anything is claimed: what no architecture takes is
    # found here.
    programs = {population_key(config): config for _, config in trials}
    programs = {key: _program(config) for key, config in programs.items()}
    if not options.dry_run:
        store.ensure_writable(workdir)
    work = plan.make(
        workdir,
        trials,
        rerun=options.rerun,
        claim=not options.dry_run,
        population_size=options.population_size,
    )
    _show_plan(console, request, trials, work, programs)
    if options.keep_weights:
        lost = [i for i in work.done if not (workdir / weights.FOLDER / i).is_dir()]
        if lost:
            console.print(
                f"{len(lost)} trials are done and their weights were not kept: --rerun trains them "
                "again",
                style="red",
            )
    if options.dry_run:
        return 0
    reporter = Reporter(console)
    todo = {trial: config for run_ in work.runs for trial, config in run_.trials.items()}
    missing = data.prepare(todo.values(), reporter)
    waiting = {i: c for i, c in todo.items() if naming.to_json(c["task"]) in missing}
    ready = [run_ for run_ in work.runs if not waiting.keys() & run_.trials.keys()]
    if ready:
        began = time.monotonic()
        worker.run_all(
            workdir,
            request.study.name,
            ready,
            reporter,
            options.checkpoint_seconds,
            options.keep_weights,
            options.stream,
        )
        console.print(f"Trained in {time.monotonic() - began:.0f} s.")
    if store.read_all(workdir):
        board = build.build(workdir)
        tables.print_table(board, console)
        console.print(f"Written: {', '.join(map(str, board.files))}", soft_wrap=True)
    return _summary(console, workdir, trials, waiting, missing)


def _program(config: Mapping[str, Any]) -> Program:
    try:
        return Program(config)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{model_name(config['model'])}: {error}") from error


def _show_plan(
    console: Console,
    request: cli.Request,
    trials: Sequence[Any],
    work: plan.Plan,
    programs: Mapping[str, Program],
) -> None:
    todo = sum(len(run.trials) for run in work.runs)
    console.print(
        f"[bold]{request.study.name}[/bold]: {len(trials)} trials, {len(work.done)} done, "
        f"{todo} to run as {len(work.runs)} populations; results in {request.workdir}"
    )
    if not work.runs:
        return
    forecasts = []
    for run_ in work.runs:
        config = next(iter(run_.trials.values()))
        program = programs.get(population_key(config)) or _program(config)
        forecasts.append(forecast.of(program, len(run_.trials)))
    forecast.show(console, forecasts, measured=request.options.dry_run)


def _summary(
    console: Console,
    workdir: Path,
    trials: list[tuple[str, dict[str, Any]]],
    waiting: Mapping[str, Mapping[str, Any]],
    missing: Mapping[str, str],
) -> int:
    """Says what is not done and why; returns the exit code."""
    records = {r["id"]: r for r in store.read_all(workdir)}
    failed = [records[i] for i, _ in trials if i in records and records[i]["status"] == "failed"]
    for record in failed:
        name, seed = model_name(record["config"]["model"]), record["config"]["seed"]
        line = f"failed {name} (seed {seed}): {record['error']}"
        console.print(line, style="red", markup=False)
    for described, reason in missing.items():
        count = sum(naming.to_json(config["task"]) == described for config in waiting.values())
        line = f"not run, {count} trials: {reason}; then run the same command again"
        console.print(line, style="red", markup=False, soft_wrap=True)
    return 1 if failed or waiting else 0


if __name__ == "__main__":
    cli.main("sweep", main, sys.argv[1:])
