"""Speed and memory: `python -m runners.benchmark --ops` and `python -m runners.benchmark --mixers`.

Of the operators, every implementation that can run here is timed beside what a JAX user would write
today, in turns in one process: forward, forward and backward, compile time, temporary memory, and
the share of what this machine can do at most. Of the architectures, forward and backward is timed
in turns with softmax attention, and its growth with the length, and one decoded token.

Each run adds a file `results/benchmarks/<device>/ops-<time>.json` or `mixers-<time>.json`; `ops.md`
and `ops.png`, `mixers.md` and its plots in that folder show the newest figure of every candidate.

Exit codes: 0 all done; 1 an architecture could not be measured; 2 the request was wrong.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import arch
from pallas_kernels.shapes import EXAMPLES, Example
from runners.benchmark import fla, machine, mixer_page, mixers, operator_page, operators, records
from runners.core import cli
from runners.core.errors import ConfigError, nearest

_LENGTHS = (1024, 2048, 4096, 8192, 16384)
# Shapes that are also timed at every length: one a rule.
_GROWING = ("typical", "window", "block_local", "strided", "fixed")
_DTYPES = ("float32", "bfloat16")


Step = tuple[str, Callable[[machine.Limits], Iterable[Any]]]  # a title, and what measures its rows


def run(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    options = _parse(argv)
    of_mixers = bool(options.mixers)
    plan, steps = _of_mixers(options) if of_mixers else _of_operators(options)
    console = cli.console()
    folder = options.workdir / "benchmarks" / machine.slug()
    limits = machine.Limits.measure(options.dtypes)
    console.print(f"{machine.name()}: {limits}", soft_wrap=True)
    console.print(f"{plan}; results go to {folder}", soft_wrap=True)

    record = records.Record(folder, mixer_page.KIND if of_mixers else operator_page.KIND, limits)
    failed = False
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        for title, measure in steps:
            progress.update(task, description=title)
            if not console.is_terminal:
                console.print(title)
            rows = list(measure(limits))
            record.add(rows)  # at once: what was measured survives a kill
            failed |= of_mixers and any(row.failure is not None for row in rows)
    if not of_mixers and jax.devices()[0].platform == "gpu" and "bfloat16" in options.dtypes:
        try:
            record.add(_peers(_examples(options)))
        except RuntimeError as error:
            console.print(f"without the peers' kernels: {error}", soft_wrap=True, markup=False)
    for path in (mixer_page if of_mixers else operator_page).publish(folder, console):
        console.print(f"wrote {path}", soft_wrap=True)
    return int(failed)


def _of_operators(options: argparse.Namespace) -> tuple[str, list[Step]]:
    examples = _examples(options)
    steps = []
    for example, dtype in _grid(examples, options):

        def measure(limits: machine.Limits, example=example, dtype=dtype) -> Iterable[Any]:
            return operators.measure(example, dtype, limits, options.rounds, options.only)

        title = f"{example.operator} {example.name} {operator_page.sizes(example.sizes)} {dtype}"
        steps.append((title, measure))
    return f"{len(examples)} shapes × {', '.join(options.dtypes)}", steps


def _of_mixers(options: argparse.Namespace) -> tuple[str, list[Step]]:
    setting = mixers.Setting(
        batch=options.batch,
        length=options.length,
        d_model=options.d_model,
        lengths=options.lengths,
        prompts=options.prompts,
    )
    steps = []
    for dtype in options.dtypes:
        bench = mixers.Bench(dataclasses.replace(setting, dtype=dtype), options.rounds)
        for name in options.mixers:

            def measure(_: machine.Limits, bench=bench, name=name) -> Iterable[Any]:
                return [bench.measure(name)]

            steps.append((f"{name} {dtype}", measure))
    return f"{len(options.mixers)} architectures × {', '.join(options.dtypes)}", steps


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m runners.benchmark",
        description="Speed and memory against the alternatives and the machine's own limits.",
        allow_abbrev=False,
    )
    operators_ = sorted({example.operator for example in EXAMPLES})
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--ops",
        nargs="?",
        const=",".join(operators_),
        metavar="NAME,NAME",
        help=f"the operators (default: all of {', '.join(operators_)})",
    )
    what.add_argument(
        "--mixers",
        nargs="?",
        const="all",
        metavar="NAME,NAME",
        help="architectures as layers, beside attention (default: all)",
    )
    parser.add_argument(
        "--dtypes",
        metavar="NAME,NAME",
        help="float32, bfloat16 (default: float32 on a CPU and for --mixers, else both)",
    )
    parser.add_argument(
        "--lengths",
        metavar="T,T",
        help="lengths of the plot; none for no plot (default: "
        f"{','.join(map(str, _LENGTHS))}; for --mixers to {mixers.Setting.lengths[-1]})",
    )
    parser.add_argument("--rounds", type=int, default=7, help="samples of each (default: 7)")
    parser.add_argument("--workdir", type=Path, default=Path("results"), help="default: results")
    group = parser.add_argument_group("of operators")
    group.add_argument("--shapes", metavar="NAME,NAME", help="named shapes (default: all)")
    group.add_argument(
        "--only", metavar="NAME,NAME", help="implementations and alternatives (default: all)"
    )
    group = parser.add_argument_group("of architectures")
    for option, letter in (("batch", "B"), ("length", "T"), ("d_model", "D")):
        default = getattr(mixers.Setting, option)
        group.add_argument(
            f"--{option}", type=int, default=default, help=f"{letter} (default: {default})"
        )
    group.add_argument(
        "--prompts",
        metavar="T,T",
        help="after how many tokens one is decoded (default: "
        f"{','.join(map(str, mixers.Setting.prompts))})",
    )
    options = parser.parse_args(argv)
    options.ops = _names("--ops", options.ops, operators_)
    options.mixers = _mixer_names(options.mixers)
    shapes = {e.name for e in EXAMPLES if e.operator in options.ops}
    options.shapes = _names("--shapes", options.shapes, sorted(shapes))
    one_dtype = options.mixers or jax.devices()[0].platform == "cpu"
    default = _DTYPES[:1] if one_dtype else _DTYPES
    options.dtypes = _names("--dtypes", options.dtypes, _DTYPES) or default
    options.only = options.only and options.only.split(",")
    default = mixers.Setting.lengths if options.mixers else _LENGTHS
    options.lengths = _lengths("--lengths", options.lengths, default)
    options.prompts = _lengths("--prompts", options.prompts, mixers.Setting.prompts)
    for option in ("rounds", "batch", "length", "d_model"):
        value = getattr(options, option)
        if value < 1:
            raise ConfigError(f"--{option} {value}: expected at least 1")
    return options


def _mixer_names(text: str | None) -> tuple[str, ...]:
    """Registered names or import paths; none where nothing was asked for."""
    names = arch.names() if text == "all" else text.split(",") if text else []
    for name in names:
        try:
            arch.get(name)
        except ValueError as error:
            raise ConfigError(f"--mixers: {error}") from error
    return tuple(names)


def _names(option: str, text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """The names in a comma-separated list; none where nothing was asked for."""
    names = tuple(text.split(",")) if text else ()
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} {name!r}: {nearest(name, known)}")
    return names


def _lengths(option: str, text: str | None, default: tuple[int, ...]) -> tuple[int, ...]:
    if text is None:
        return default
    if text == "none":
        return ()
    try:
        lengths = tuple(int(part) for part in text.split(","))
    except ValueError:
        lengths = (0,)
    if min(lengths) < 1:
        raise ConfigError(f"{option} {text!r}: expected positive numbers such as 1024,2048")
    return lengths


def _examples(options: argparse.Namespace) -> list[Example]:
    """The named shapes that were asked for; large ones only by name, or on an accelerator."""
    laptop = jax.devices()[0].platform == "cpu"
    return [
        example
        for example in EXAMPLES
        if example.operator in options.ops
        and (example.name in options.shapes if options.shapes else not (example.large and laptop))
    ]


def _grid(
    examples: Sequence[Example], options: argparse.Namespace
) -> Iterator[tuple[Example, str]]:
    for example in examples:
        longer = [
            example.with_length(length)
            for length in options.lengths
            if example.name in _GROWING and length != example.sizes["T"]
        ]
        for dtype in options.dtypes:
            if example.name == "complex" and dtype != "float32":
                continue  # complex numbers have one width
            yield example, dtype
            if dtype == options.dtypes[0]:
                for other in longer:
                    yield other, dtype


def _peers(examples: Sequence[Example]) -> list[operators.Row]:
    """Rows of flash-linear-attention's kernels at the large shapes they were written for."""
    names = {
        (e.operator, *e.sizes.items()): e.name
        for e in examples
        if e.large and e.operator in fla.PEERS.values()
    }
    sizes = sorted({tuple(size for _, size in key[1:]) for key in names})
    found = []
    for row in fla.fla_times(sizes) if sizes else ():
        shape = names.get((row["operator"], *row["sizes"].items()))
        if shape is not None:
            fields = {f.name for f in dataclasses.fields(operators.Row)}
            known = {field: value for field, value in row.items() if field in fields}
            found.append(operators.Row(**known, shape=shape, is_default=False))
    return found


if __name__ == "__main__":
    cli.main("benchmark", run, sys.argv[1:])
