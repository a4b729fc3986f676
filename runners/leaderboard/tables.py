"""A leaderboard as columns: CSV for programs, aligned text or rich for the terminal."""

import collections
import csv
import dataclasses
import io
import itertools
from collections.abc import Callable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runners.core import hyperparameters
from runners.core.format import to_bytes, to_count, to_number
from runners.core.hyperparameters import Hyperparameter
from runners.core.store import Record
from runners.leaderboard.rows import LeaderboardRow, Section
from tasks import Metric

_VERBATIM = {"markup": False, "highlight": False, "soft_wrap": True}


@dataclasses.dataclass(frozen=True)
class _TableLine:
    """One line of a table; a reference score was computed, not measured."""

    cells: list[str]
    is_reference: bool = False


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """The results of one study.

    Attributes:
      study: its name.
      records: the newest record of every trial.
      sections: the rows and reference scores of each task in the study.
      files: what was written.
    """

    study: str
    records: tuple[Record, ...]
    sections: tuple[Section, ...]
    files: tuple[Path, ...] = ()

    @property
    def rows(self) -> tuple[LeaderboardRow, ...]:
        return tuple(row for section in self.sections for row in section.rows)

    @property
    def usual_commits(self) -> tuple[str, ...]:
        """The code that most rows come from."""
        counts = collections.Counter(row.commits for row in self.rows)
        return min(counts, key=lambda commits: (-counts[commits], commits))

    @property
    def is_of_one_code(self) -> bool:
        """True if all rows come from the same code."""
        return all(row.commits == self.usual_commits for row in self.rows)

    @property
    def shown_hyperparameters(self) -> tuple[Hyperparameter, ...]:
        """The tuned hyperparameters that have a column: the first, and those that vary."""
        first, *others = hyperparameters.TUNED
        configs = [record["config"] for record in self.records]
        return (first, *(h for h in others if len({h.of(config) for config in configs}) > 1))


def _to_score(row: LeaderboardRow, metric: Metric) -> str:
    """The mean with its interval, or in words why there is none."""
    if row.mean is None:
        return outcome(row)
    interval = "" if row.half_width is None else f" ± {metric.format(row.half_width)}"
    return metric.format(row.mean) + interval


def outcome(row: LeaderboardRow) -> str:
    """The end of the trials behind a row, where not all are done: "2 of 3 diverged"."""
    parts = [
        f"{count} of {row.trials} {word}"
        for word, count in (("diverged", row.diverged), ("failed", row.failed))
        if count
    ]
    return ", ".join(parts)


def _split_references(section: Section) -> tuple[list[str], list[str]]:
    """Names of the reference scores above the rows (a ceiling) and below them, best first.

    The best of several is a ceiling unless a row beats it: not every task knows its optimum.
    """
    metric, scores = section.metric, section.judge.reference_scores
    ranked = sorted(scores, key=lambda name: (metric.rank(scores[name]), name))
    is_known = section.judge.knows_optimum
    if (
        not is_known
        or len(ranked) < 2
        or any(metric.better(r.mean, scores[ranked[0]]) for r in section.rows)
    ):
        return [], ranked
    return ranked[:1], ranked[1:]


def seeds(row: LeaderboardRow) -> str:
    """The number of seeds behind the mean: "3", or "2/3" where some did not survive."""
    return f"{row.done}" if row.done == row.trials else f"{row.done}/{row.trials}"


def has_states(board: Leaderboard) -> bool:
    """Returns True if any model has a recurrent state: what sees both ways has none."""
    return any(row.state_bytes is not None for row in board.rows)


def section_table(
    board: Leaderboard, section: Section, *, wide: bool
) -> tuple[list[str], list[_TableLine]]:
    """Headers and lines of a section with its reference scores.

    wide: with the columns that terminals lack room for.
    """
    varied = len({row.d_model for row in board.rows}) > 1
    usual = board.usual_commits
    score = f"test {section.metric.heading}"
    table: dict[str, Callable[[LeaderboardRow], str]] = {
        "architecture": lambda row: row.label if row.commits == usual else f"{row.label} †",
        "width": lambda row: str(row.d_model),
        "layers": lambda row: str(row.num_layers),
        "state": lambda row: to_bytes(row.state_bytes),
        "params": lambda row: to_count(row.parameters),
        **{
            h.column: lambda row, name=h.name: to_number(row.tuned.get(name))
            for h in board.shown_hyperparameters
        },
        score: lambda row: _to_score(row, section.metric),
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
        and (header != "state" or has_states(board))
    ]

    def reference(name: str) -> _TableLine:
        value = section.metric.format(section.judge.reference_scores[name])
        cells = {"architecture": name, score: value}
        return _TableLine([cells.get(header, "") for header in shown], is_reference=True)

    above, below = _split_references(section)
    measured = [_TableLine([table[header](row) for header in shown]) for row in section.rows]
    return shown, [*map(reference, above), *measured, *map(reference, below)]


def explain_references(section: Section, style: str = "{}") -> str:
    """One line on the reference scores under a table, best first; empty if there are none.

    style: of the names, "*{}*" for italics.
    """
    above, below = _split_references(section)
    notes = section.judge.reference_notes
    told = [f"{style.format(name)}: {notes[name]}" for name in [*above, *below] if name in notes]
    return f"Reference scores: {'; '.join(told)}." if told else ""


_MODEL_FIELDS = ("mixer", "d_model", "num_layers", "parameters", "state_bytes")
_RESULT_FIELDS = (
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
    """One line for each row and reference score, numbers in full."""
    slices = sorted(
        {piece.key for s in board.sections for row in s.rows for piece in s.slices(row)}
    )
    tuned = [h.name for h in hyperparameters.TUNED]
    writer = csv.DictWriter(
        text := io.StringIO(),
        [
            *("study", "task", "setting", "metric", "kind", "label", *_MODEL_FIELDS, *tuned),
            *(*_RESULT_FIELDS, "scores", "commits", "devices", "error"),
            *(f"slice {key}" for key in slices),
        ],
        lineterminator="\n",
    )
    writer.writeheader()
    for section in board.sections:
        start = {
            "study": board.study,
            "task": section.task["name"],
            "setting": section.setting,
            "metric": section.metric.name,
        }
        for row in section.rows:
            writer.writerow(
                start
                | {field: getattr(row, field) for field in (*_MODEL_FIELDS, *_RESULT_FIELDS)}
                | row.tuned
                | {f"slice {piece.key}": score for piece, score in section.slices(row).items()}
                | {
                    "kind": "measured",
                    "label": row.label,
                    "scores": " ".join(f"{seed}:{score!r}" for seed, score in row.scores),
                    "commits": " ".join(row.commits),
                    "devices": ", ".join(row.devices),
                    "error": row.error,
                }
            )
        for name in itertools.chain(*_split_references(section)):
            score = section.judge.reference_scores[name]
            writer.writerow(start | {"kind": "reference", "label": name, "mean": score})
    return text.getvalue()


def notes(board: Leaderboard) -> list[str]:
    """Remarks beside the table: failures, and rows from other code."""
    found = []
    for section in board.sections:
        where = f" at {section.setting}" if section.setting else ""
        width = len({row.d_model for row in section.rows}) > 1
        for row in section.rows:
            if row.done < row.trials:
                name = f"{row.label}, width {row.d_model}" if width else row.label
                values = [
                    f"{h.column} {to_number(row.tuned[h.name])}"
                    for h in board.shown_hyperparameters
                    if h.name in row.tuned
                ]
                chosen = f" ({', '.join(values)})" if values else ""
                error = f": {' '.join(row.error.split())}" if row.error and row.failed else ""
                found.append(f"{name}{where}: {outcome(row)}{chosen}{error}")
    if not board.is_of_one_code:
        found.append("† measured with other code than most rows")
    return found


def print_table(board: Leaderboard, console: Console) -> None:
    """Prints the table: styled at a terminal, plain aligned lines elsewhere."""
    for section in board.sections:
        headers, lines = section_table(board, section, wide=False)
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
                table.add_row(*map(Text, line.cells), style="dim" if line.is_reference else None)
            console.print(table)
        else:
            console.print(_plain(title, headers, lines), **_VERBATIM)
        if explained := explain_references(section):
            console.print(explained, **_VERBATIM)
    for note in notes(board):
        console.print(note, **_VERBATIM)


def _plain(title: str, headers: list[str], lines: list[_TableLine]) -> str:
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
