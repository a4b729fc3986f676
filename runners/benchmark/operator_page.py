"""Page and plot of the operators' measurements, for each device."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from pallas_kernels.example import examples
from runners.benchmark import operator_plot, records
from runners.benchmark.operators import PASSES, OperatorTiming
from runners.core import files
from runners.core.markdown import to_table

KIND = "ops"
_COLUMNS = (
    "candidate",
    "forward",
    "×",
    "fwd+bwd",
    "×",
    "compile",
    "temporary",
    "copy",
    "matmul",
    "error",
)


def publish(folder: Path, console: Console) -> list[Path]:
    """Prints the tables of a device and writes its page and plot; returns all its files.

    Raises:
      ResultsError: a record is corrupt.
    """
    runs = records.read(folder, KIND, OperatorTiming)
    rows = _newest(runs)
    for title, group in _by_shape(rows):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, name in enumerate(_COLUMNS):
            table.add_column(name, justify="right" if i else "left")
        for line in _lines(group):
            table.add_row(*line)
        console.print(table)
    page, plot = folder / "ops.md", folder / "ops.png"
    files.replace(page, _page(runs, rows).encode())
    files.replace(plot, operator_plot.draw(rows))
    return [run.path for run in runs[-1:]] + [page, plot]


def sizes(of: Mapping[str, int]) -> str:
    """Sizes for people: B4 T1024 D512."""
    return " ".join(f"{letter}{size}" for letter, size in of.items())


def _newest(runs: Sequence[records.BenchmarkRun]) -> list[OperatorTiming]:
    """The newest row of every candidate, shape and direction, in the order of the shapes."""
    found: dict[tuple, OperatorTiming] = {}
    for run in runs:
        for row in run.rows:
            key = (row.operator, row.shape, *row.sizes.items(), row.dtype, row.candidate)
            found[(*key, row.direction)] = row
    order = {(e.operator, e.name): i for i, e in enumerate(examples())}
    return sorted(found.values(), key=lambda row: order.get((row.operator, row.shape), len(order)))


def _by_shape(rows: Sequence[OperatorTiming]) -> Iterator[tuple[str, list[OperatorTiming]]]:
    """The rows at named shapes, with a title; those at other lengths belong to the plot alone."""
    named = {(e.operator, e.name, *e.sizes.items()) for e in examples()}
    shown = [row for row in rows if (row.operator, row.shape, *row.sizes.items()) in named]

    def title(row: OperatorTiming) -> str:
        return f"{row.operator}, {row.shape} ({sizes(row.sizes)}), {row.dtype}"

    for name, group in itertools.groupby(shown, key=title):
        yield name, list(group)


def _lines(rows: Sequence[OperatorTiming]) -> list[list[str]]:
    """One line for each candidate at one shape, both directions in it."""
    lines: dict[str, dict[str, OperatorTiming]] = {}
    for row in rows:
        lines.setdefault(row.candidate, {})[row.direction] = row
    return [_line(candidate, passes) for candidate, passes in lines.items()]


def _line(candidate: str, passes: Mapping[str, OperatorTiming]) -> list[str]:
    forward, both = (passes.get(direction) for direction in PASSES)
    is_default = any(row.is_default for row in passes.values())
    cells = [candidate + (" •" if is_default else "")]
    cells += [*_time_cells(forward), *_time_cells(both)]
    known = [row for row in (forward, both) if row is not None and row.skipped is None]
    if not known:
        return cells + ["–"] * (len(_COLUMNS) - len(cells))
    errors = [row.error for row in known if row.error is not None]
    memory = known[-1].temporary_bytes
    return [
        *cells,
        _cell(known[-1].compile_seconds, "{:.1f} s"),
        _cell(None if memory is None else memory / 2**20, "{:.1f} MiB"),
        _cell(known[0].copy_share, "{:.0%}"),
        _cell(known[0].matmul_share, "{:.0%}"),
        _cell(max(errors, default=None), "{:.0e}"),
    ]


def _cell(value: float | None, form: str) -> str:
    """The value as text; a dash for one that was not measured."""
    return "–" if value is None else form.format(value)


def _time_cells(row: OperatorTiming | None) -> list[str]:
    if row is None:
        return ["–", "–"]
    if row.skipped is not None:
        return [row.skipped, "–"]
    return [f"{1e3 * row.seconds:.3g} ms", _cell(row.ratio, "{:.2f}")]


def _page(runs: Sequence[records.BenchmarkRun], rows: Sequence[OperatorTiming]) -> str:
    lines = [f"# Operators on {runs[-1].device}", "", "![Time against length](ops.png)"]
    lines += [
        "",
        "*Forward and backward against length, with the exponent of growth.*",
        "",
        "• is what runs by default. × is the time over the default's, the median over rounds in "
        "which the candidates took turns. `compile` and `temporary` (the compiler's count) are "
        "those of forward and backward; `copy` and `matmul` the forward pass's share of the "
        "machine's copy bandwidth and rate of matrix products; `error` the largest relative RMS "
        "over outputs and gradients against the recurrence in float32.",
    ]
    for title, group in _by_shape(rows):
        lines += ["", f"## {title}", "", *to_table(list(_COLUMNS), _lines(group))]
    lines += ["", *records.listing(runs)]
    return "\n".join(lines) + "\n"
