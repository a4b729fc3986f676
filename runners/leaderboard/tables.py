"""A leaderboard as columns: CSV for programs, aligned text or rich for the terminal."""

import collections
import csv
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runners.core.format import to_bytes, to_count, to_number
from runners.core.store import Record
from runners.leaderboard.selection import Row, Section

_VERBATIM = {"markup": False, "highlight": False, "soft_wrap": True}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a table; an anchor was computed, not measured."""

    cells: list[str]
    is_anchor: bool = False


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """What one study found.

    Attributes:
      study: its name.
      records: the newest record of every trial.
      sections: the rows and anchors of each task in the study.
      files: what was written.
    """

    study: str
    records: tuple[Record, ...]
    sections: tuple[Section, ...]
    files: tuple[Path, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for section in self.sections for row in section.rows)

    @property
    def anchors(self) -> dict[str, dict[str, float]]:
        """Anchors by section and name."""
        return {section.setting: section.anchors for section in self.sections}


def to_score(row: Row) -> str:
    """The mean with its interval, or in words why there is none."""
    if row.mean is None:
        return outcome(row)
    return f"{row.mean:.3f}" + ("" if row.half_width is None else f" ± {row.half_width:.3f}")


def outcome(row: Row) -> str:
    """How the trials behind a row ended, where not all are done: "2 of 3 diverged"."""
    parts = [
        f"{count} of {row.trials} {word}"
        for word, count in (("diverged", row.diverged), ("failed", row.failed))
        if count
    ]
    return ", ".join(parts)


def split_anchors(section: Section) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Anchors for the top (the ceiling) and for the bottom (trivial predictors), best first."""
    ranked = sorted(section.anchors.items(), key=lambda item: (-item[1], item[0]))
    return (ranked[:1], ranked[1:]) if len(ranked) > 1 else ([], ranked)


def seeds(row: Row) -> str:
    """How many seeds the mean is over: "3", or "2/3" where some did not survive."""
    return f"{row.done}" if row.done == row.trials else f"{row.done}/{row.trials}"


def marked(board: Leaderboard) -> set[int]:
    """The ids of the rows that come from other code than most rows do."""
    counts = collections.Counter(row.commits for row in board.rows)
    usual = min(counts, key=lambda commits: (-counts[commits], commits))
    return {id(row) for row in board.rows if row.commits != usual}


def has_states(board: Leaderboard) -> bool:
    """Whether any model has a recurrent state: what sees both ways has none."""
    return any(row.state_bytes is not None for row in board.rows)


def columns(board: Leaderboard, section: Section, *, wide: bool) -> tuple[list[str], list[Line]]:
    """Headers and lines of a section and its anchors; `wide` adds what terminals lack room for."""
    varied = len({row.d_model for row in board.rows}) > 1
    decays = {r["config"]["optimizer"]["weight_decay"] for r in board.records}
    others = marked(board)
    score = f"test {section.metric}"
    table: dict[str, Callable[[Row], str]] = {
        "architecture": lambda row: row.label + " †" * (id(row) in others),
        "width": lambda row: str(row.d_model),
        "layers": lambda row: str(row.num_layers),
        "state": lambda row: to_bytes(row.state_bytes),
        "params": lambda row: to_count(row.parameters),
        "lr": lambda row: to_number(row.learning_rate),
        "wd": lambda row: to_number(row.weight_decay),
        score: to_score,
        "seeds": seeds,
        "steps": lambda row: to_count(row.steps),
        "seconds": lambda row: "–" if row.train_seconds is None else f"{row.train_seconds:.0f}",
        "examples/s": lambda row: to_count(row.examples_per_second),
    }
    shown = [
        header
        for header in table
        if (wide or header not in ("layers", "steps", "examples/s"))
        and (wide or varied or header != "width")
        and (len(decays) > 1 or header != "wd")
        and (header != "state" or has_states(board))
    ]

    def anchor(name: str, value: float) -> Line:
        cells = {"architecture": name, score: f"{value:.3f}"}
        return Line([cells.get(header, "") for header in shown], is_anchor=True)

    ceiling, floor = split_anchors(section)
    measured = [Line([table[header](row) for header in shown]) for row in section.rows]
    return shown, [
        *(anchor(*pair) for pair in ceiling),
        *measured,
        *(anchor(*pair) for pair in floor),
    ]


_CSV_FIELDS = (
    "mixer",
    "d_model",
    "num_layers",
    "parameters",
    "state_bytes",
    "learning_rate",
    "weight_decay",
    "mean",
    "half_width",
    "validation",
    "done",
    "diverged",
    "failed",
    "candidates",
    "steps",
    "train_seconds",
    "examples_per_second",
)


def to_csv(board: Leaderboard) -> str:
    """One line for each row and anchor, numbers in full."""
    slices = sorted({name for row in board.rows for name in row.slices})
    names = [
        "study",
        "task",
        "setting",
        "metric",
        "kind",
        "label",
        *_CSV_FIELDS,
        "scores",
        "commits",
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "devices", "error", *(f"slice {name}" for name in slices)])
    for section in board.sections:
        start = [board.study, section.task["name"], section.setting, section.metric]
        for row in section.rows:
            values = [getattr(row, field) for field in _CSV_FIELDS]
            scores = " ".join(f"{seed}:{score!r}" for seed, score in row.scores)
            origin = [" ".join(row.commits), ", ".join(row.devices), row.error]
            line = [*start, "measured", row.label, *values, scores, *origin]
            writer.writerow([*line, *(row.slices.get(name) for name in slices)])
        for name, score in (pair for part in split_anchors(section) for pair in part):
            values = [score if field == "mean" else None for field in _CSV_FIELDS]
            writer.writerow([*start, "anchor", name, *values, *[None] * (4 + len(slices))])
    return text.getvalue()


def notes(board: Leaderboard) -> list[str]:
    """What a reader must know beside the table: failures, and rows from other code."""
    found = []
    for section in board.sections:
        where = f" at {section.setting}" if section.setting else ""
        width = len({row.d_model for row in section.rows}) > 1
        for row in section.rows:
            if row.done < row.trials:
                name = f"{row.label}, width {row.d_model}" if width else row.label
                rate = "" if row.learning_rate is None else f" (lr {to_number(row.learning_rate)})"
                error = f": {' '.join(row.error.split())}" if row.error and row.failed else ""
                found.append(f"{name}{where}: {outcome(row)}{rate}{error}")
    if marked(board):
        found.append("† measured with other code than most rows")
    return found


def print_table(board: Leaderboard, console: Console) -> None:
    """Prints the table: styled at a terminal, plain aligned lines elsewhere."""
    for section in board.sections:
        headers, lines = columns(board, section, wide=False)
        title = f"{board.study}, {section.setting}" if section.setting else board.study
        if console.is_terminal:
            table = Table(
                title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
            )
            for i, header in enumerate(headers):
                table.add_column(
                    header, justify="right" if i else "left", no_wrap=i > 0, overflow="fold"
                )
            for line in lines:
                table.add_row(*map(Text, line.cells), style="dim" if line.is_anchor else None)
            console.print(table)
        else:
            console.print(_plain(title, headers, lines), **_VERBATIM)
    for note in notes(board):
        console.print(note, **_VERBATIM)


def _plain(title: str, headers: list[str], lines: list[Line]) -> str:
    grid = [headers, *(line.cells for line in lines)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return "\n".join(
        [title]
        + [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ).rstrip()
            for cells in grid
        ]
    )
