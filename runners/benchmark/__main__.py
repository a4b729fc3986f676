"""Speed and memory: `python -m runners.benchmark --ops` and `python -m runners.benchmark --mixers`.

Operators: every implementation that can run here and the baselines in plain JAX, in interleaved
rounds in one process: forward, forward and backward, compile time, temporary memory, and the share
of this machine's copy bandwidth and rate of matrix products. Architectures: forward and backward in
interleaved rounds with softmax attention, its growth with the length, and one decoded token.

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
from pallas_kernels import dispatch
from pallas_kernels.example import Example, examples
from runners.benchmark import fla, machine, mixer_page, mixers, operator_page, operators, records
from runners.core import cli
from runners.core.errors import ConfigError, nearest

_LENGTHS = (1024, 2048, 4096, 8192, 16384)
_DTYPES = ("float32", "bfloat16")


# A title, and a function that measures the rows under it.
_Step = tuple[str, Callable[[machine.Limits], Iterable[Any]]]


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
            record.add(_fla_timings(_examples(options)))
        except RuntimeError as error:
            console.print(f"without flash-linear-attention: {error}", soft_wrap=True, markup=False)
    for path in (mixer_page if of_mixers else operator_page).publish(folder, console):
        console.print(f"wrote {path}", soft_wrap=True)
    return int(failed)


def _of_operators(options: argparse.Namespace) -> tuple[str, list[_Step]]:
    asked = _examples(options)
    steps = []
    for example, dtype in _grid(asked, options):

        def measure(limits: machine.Limits, example=example, dtype=dtype) -> Iterable[Any]:
            return operators.measure(example, dtype, limits, options.rounds, options.only)

        title = f"{example.operator} {example.name} {operator_page.sizes(example.sizes)} {dtype}"
        steps.append((title, measure))
    return f"{len(asked)} shapes × {', '.join(options.dtypes)}", steps


def _of_mixers(options: argparse.Namespace) -> tuple[str, list[_Step]]:
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
    """The command line, its names and numbers checked and its defaults filled in."""
    options = _parser().parse_args(argv)
    options.ops = _names("--ops", options.ops, dispatch.operators())
    options.mixers = _mixer_names(options.mixers)
    shapes = {example.name for name in options.ops for example in examples(name)}
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


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m runners.benchmark",
        description="Speed and memory against baselines and the machine's own limits.",
        allow_abbrev=False,
    )
    names = dispatch.operators()
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument(
        "--ops",
        nargs="?",
        const=",".join(names),
        metavar="NAME,NAME",
        help=f"the operators (default: all of {', '.join(names)})",
    )
    subject.add_argument(
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
        help="lengths of the plot; none for no plot "
        f"(default: {_listed(_LENGTHS)}; for --mixers to {mixers.Setting.lengths[-1]})",
    )
    parser.add_argument("--rounds", type=int, default=7, help="samples of each (default: 7)")
    parser.add_argument("--workdir", type=Path, default=Path("results"), help="default: results")
    _add_operator_options(parser.add_argument_group("of operators"))
    _add_mixer_options(parser.add_argument_group("of architectures"))
    return parser


def _add_operator_options(group: Any) -> None:
    group.add_argument("--shapes", metavar="NAME,NAME", help="named shapes (default: all)")
    group.add_argument(
        "--only", metavar="NAME,NAME", help="implementations and baselines (default: all)"
    )


def _add_mixer_options(group: Any) -> None:
    for option, letter in (("batch", "B"), ("length", "T"), ("d_model", "D")):
        default = getattr(mixers.Setting, option)
        group.add_argument(
            f"--{option}", type=int, default=default, help=f"{letter} (default: {default})"
        )
    group.add_argument(
        "--prompts",
        metavar="T,T",
        help=f"prompt lengths for decoding (default: {_listed(mixers.Setting.prompts)})",
    )


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


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
        for example in examples()
        if example.operator in options.ops
        and (example.name in options.shapes if options.shapes else not (example.large and laptop))
    ]


def _grid(asked: Sequence[Example], options: argparse.Namespace) -> Iterator[tuple[Example, str]]:
    """Every shape in every dtype it has, and in the first dtype also at the other lengths."""
    for example in asked:
        lengths = [n for n in options.lengths if example.grows and n != example.sizes["T"]]
        for dtype in options.dtypes:
            if dtype not in example.dtypes:
                continue
            yield example, dtype
            if dtype == options.dtypes[0]:
                yield from ((example.with_length(length), dtype) for length in lengths)


def _fla_timings(asked: Sequence[Example]) -> list[operators.OperatorTiming]:
    """Timings of flash-linear-attention's kernels at the large shapes they were written for."""
    names = {
        (e.operator, *e.sizes.items()): e.name
        for e in asked
        if e.large and e.operator in fla.OPERATORS.values()
    }
    sizes = sorted({tuple(size for _, size in key[1:]) for key in names})
    fields = {field.name for field in dataclasses.fields(operators.OperatorTiming)}
    found = []
    for row in fla.fla_times(sizes) if sizes else ():
        shape = names.get((row["operator"], *row["sizes"].items()))
        if shape is not None:
            known = {field: value for field, value in row.items() if field in fields}
            found.append(operators.OperatorTiming(**known, shape=shape, is_default=False))
    return found


if __name__ == "__main__":
    cli.main("benchmark", run, sys.argv[1:])
