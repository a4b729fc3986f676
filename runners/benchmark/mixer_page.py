"""What `runners.benchmark --mixers` found: one page and two plots a device."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from runners.benchmark import mixer_plot, records
from runners.benchmark.mixers import BARS, BASELINE, Row
from runners.core import files
from runners.core.format import to_bytes, to_count
from runners.core.markdown import to_table

KIND = "mixers"
_COLUMNS = ("mixer", "fwd+bwd", "×", "cost", "growth", "token", "state")
_WIDE = ("temporary", "compile", "params")  # what terminals lack room for


def publish(folder: Path, console: Console) -> list[Path]:
    """Prints the table of a device and writes its page and plots; returns all its files.

    Raises:
      ResultsError: a record is corrupt.
    """
    runs = records.read(folder, KIND, Row)
    rows = _newest(runs)
    for title, group in _by_setting(rows):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, name in enumerate(_COLUMNS):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for row in group:
            table.add_row(*_cells(row))
        console.print(table)
        for row in group:
            if row.failure is not None:
                console.print(f"{row.mixer}: {row.failure}", soft_wrap=True, markup=False)
    # The plots show one setting, the one with the most rows.
    _, main = max(_by_setting(rows), key=lambda group: len(group[1]))
    contents = {
        "mixers.md": _page(runs, rows).encode(),
        "mixers.png": mixer_plot.growth(main),
        "mixers-cost.png": mixer_plot.costs(main),
    }
    for name, content in contents.items():
        files.replace(folder / name, content)
    return [runs[-1].path, *(folder / name for name in contents)]


def _newest(runs: Sequence[records.Run]) -> list[Row]:
    """The newest row of every architecture and setting, cheapest first, failures last."""
    found = {}
    for row in itertools.chain.from_iterable(run.rows for run in runs):
        found[(row.mixer, row.batch, row.length, row.d_model, row.dtype)] = row
    return sorted(found.values(), key=lambda row: (row.ratio is None, row.ratio, row.mixer))


def _by_setting(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        title = f"B{row.batch} T{row.length} D{row.d_model} {row.dtype}"
        groups.setdefault(title, []).append(row)
    return iter(groups.items())


def _cells(row: Row) -> list[str]:
    tokens = " → ".join(f"{1e6 * seconds:.0f}" for _, seconds in row.token_seconds)
    return [
        row.mixer,
        _number(row.seconds, 1e3, "{:,.0f} ms"),
        _number(row.ratio, 1, "{:.2f}"),
        "–" if row.growth is None else f"O({row.growth})",
        _growth(row),
        f"{tokens} µs" if tokens else "–",
        " → ".join(_once([to_bytes(size) for _, size in row.state_bytes])) or "–",
    ]


def _wide_cells(row: Row) -> list[str]:
    return [
        to_bytes(row.temporary_bytes),
        _number(row.compile_seconds, 1, "{:.1f} s"),
        to_count(row.parameters),
    ]


def _growth(row: Row) -> str:
    """The exponent beside its bar: "1.05 ≤ 1.15", or "1.30 > 1.15 ✗"."""
    text, bar = _number(row.exponent, 1, "{:.2f}"), BARS.get(row.growth)
    if row.exponent is None or bar is None:
        return text
    return f"{text} ≤ {bar}" if row.exponent <= bar else f"{text} > {bar} ✗"


def _number(value: float | None, scale: float, form: str) -> str:
    return "–" if value is None else form.format(scale * value)


def _once(texts: Sequence[str]) -> list[str]:
    """One text where all are alike."""
    return list(dict.fromkeys(texts))


def _page(runs: Sequence[records.Run], rows: Sequence[Row]) -> str:
    lines = [
        f"# Architectures on {runs[-1].device}",
        "",
        "![Time of forward and backward against length](mixers.png)",
        "",
        "*Forward and backward on one sequence against its length, by operator, with the exponent "
        f"of growth; in grey {BASELINE}.*",
        "",
        "![Training time over attention's, time of one token, state](mixers-cost.png)",
        "",
        "*Training time over attention's; one decoded token, and the state, after a short prompt "
        "(hollow) and a long one (full).*",
        "",
        "One layer with its default options. `fwd+bwd` is forward and backward by x and every "
        f"parameter, × the same over the time of `{BASELINE}`, the median over rounds in which the "
        "two took turns in one process; `temporary` the compiler's count of memory besides "
        "arguments and results. `cost` is how the operations grow, counted in the program; "
        "`growth` the exponent of the time on one sequence against its length, and what it may be. "
        "`token` is one decoded token, `state` the bytes it leaves, after the prompts named "
        "below.",
    ]
    for title, group in _by_setting(rows):
        lines += ["", f"## {title}", "", *_ranges(group), ""]
        lines += to_table([*_COLUMNS, *_WIDE], [_cells(row) + _wide_cells(row) for row in group])
        lines += [f"\n{row.mixer}: {row.failure}" for row in group if row.failure is not None]
    lines += ["", *records.listing(runs)]
    return "\n".join(lines) + "\n"


def _ranges(rows: Sequence[Row]) -> list[str]:
    lengths = _once([", ".join(f"{n:,}" for n, _ in r.growth_seconds) for r in rows])
    prompts = _once([" → ".join(f"{n:,}" for n, _ in r.token_seconds) for r in rows])
    return [
        f"Growth over T = {' or '.join(filter(None, lengths)) or '–'}; "
        f"decoding after {' or '.join(filter(None, prompts)) or '–'} tokens."
    ]
