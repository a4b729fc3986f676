"""Measured rows of a study beside what papers report, in tables of their own."""

import collections
from collections.abc import Iterable, Sequence
from decimal import Decimal

from runners.core.format import to_count
from runners.core.markdown import to_table
from runners.leaderboard.published import PublishedTable
from runners.leaderboard.rows import LeaderboardRow, Section
from runners.leaderboard.selection import mean
from runners.leaderboard.tables import outcome, seeds

# One architecture's rows by column of a published table.
_Entry = dict[str, LeaderboardRow]


def to_lines(sections: Sequence[Section], tables: Iterable[PublishedTable]) -> list[str]:
    """The part of the page: nothing where no task of the study is a published one or beside one."""
    lines: list[str] = []
    names = {section.task["name"] for section in sections}
    for table in tables:
        entries = _measured(sections, table)
        if not entries and names.isdisjoint(table.beside):
            continue
        lines += ["", f"## Reported elsewhere: {table.title}", "", table.description]
        if entries:
            lines += ["", "### Measured in this study", ""]
            lines += [
                "The tasks are the published ones, option for option; the training is that of "
                "this study, which may be another. Of the rows above, each architecture's best on "
                "validation.",
                "",
                *_measured_table(entries, table),
            ]
        lines += ["", "### Reported by papers, not measured here", ""]
        if absent := [column.title for column in table.columns.values() if column.task is None]:
            lines += [
                f"Not tasks of Seqbench: {', '.join(absent)}. No score of this study can be set "
                "beside these.",
                "",
            ]
        lines += _reported_table(table)
        if table.notes:
            lines += ["", *(f"- {note}" for note in table.notes)]
    return lines


def _measured(sections: Iterable[Section], table: PublishedTable) -> dict[str, _Entry]:
    """By architecture and column the rows whose task is the column's; several: best on validation.

    A row without a score is there only if the architecture has none with one.
    """
    found: dict[tuple[str, str], list[LeaderboardRow]] = collections.defaultdict(list)
    for section in sections:
        for name, column in table.columns.items():
            if section.metric.name == table.metric.name and column.holds(section.task):
                for row in section.rows:
                    found[row.mixer, name].append(row)
    entries: dict[str, _Entry] = collections.defaultdict(dict)
    for (mixer, name), rows in found.items():
        entries[mixer][name] = min(rows, key=lambda row: table.metric.rank(row.validation))
    return entries


def _measured_table(entries: dict[str, _Entry], table: PublishedTable) -> list[str]:
    lines = []
    for mixer, entry in entries.items():
        scores = [entry[name].mean if name in entry else None for name in table.columns]
        known = dict(zip(table.columns, scores, strict=True))
        averages = [_average([known[name] for name in a]) for a in table.averages.values()]
        cells = [_score(entry[name], table) if name in entry else "–" for name in table.columns]
        cells += ["–" if a is None else _scaled(a, table) for a in averages]
        lines.append(([*averages, *scores], [mixer, *cells, _training(entry.values())]))
    headers = ["architecture", *_titles(table), "protocol"]
    return to_table(headers, _best_first(lines, table), last=1)


def _reported_table(table: PublishedTable) -> list[str]:
    lines = []
    for row in table.rows:
        scores = [row.scores.get(name) for name in table.columns]
        averages = [table.average(row, name) for name in table.averages]
        cells = [
            table.mark if name in row.scores and score is None else _printed(score)
            for name, score in zip(table.columns, scores, strict=True)
        ]
        cells += map(_printed, averages)
        cells = [row.name, *cells, row.protocol, row.source]
        cells = [cell if cell == "–" else f"*{cell}*" for cell in cells]
        cells.insert(1, f"`{row.mixer}`" if row.mixer else "–")
        lines.append(([*averages, *scores], cells))
    headers = ["reported", "here", *_titles(table), "protocol", "source"]
    return to_table(headers, _best_first(lines, table), left=2, last=2)


def _titles(table: PublishedTable) -> list[str]:
    titles = [*(column.title for column in table.columns.values()), *table.averages]
    return titles if table.metric.higher_is_better else [f"{title} ↓" for title in titles]


def _best_first(
    lines: list[tuple[list[Decimal | float | None], list[str]]], table: PublishedTable
) -> list[list[str]]:
    """The cells of (numbers, cells), by the first number, then by the next; what is unknown last.

    Measured and reported numbers never meet here, and so need not have one unit.
    """
    ranked = sorted(lines, key=lambda line: [table.metric.rank(number) for number in line[0]])
    return [cells for _, cells in ranked]


def _average(scores: list[float | None]) -> float | None:
    """None unless all of them were measured."""
    return None if None in scores else mean(scores)


def _score(row: LeaderboardRow, table: PublishedTable) -> str:
    if row.mean is None:
        return outcome(row)
    spread = "" if row.half_width is None else f" ± {_scaled(row.half_width, table)}"
    return _scaled(row.mean, table) + spread


def _scaled(score: float, table: PublishedTable) -> str:
    return table.metric.format(score * float(table.scale))


def _printed(number: Decimal | None) -> str:
    return "–" if number is None else str(number)


def _training(rows: Iterable[LeaderboardRow]) -> str:
    """Number of runs and their lengths: "3 seeds, 1.0k to 4.0k steps"."""
    rows = list(rows)
    counts = sorted({seeds(row) for row in rows})
    steps = sorted(row.steps for row in rows if row.steps is not None)
    ends = dict.fromkeys(map(to_count, steps[:1] + steps[-1:]))
    word = "seed" if counts == ["1"] else "seeds"
    return f"{' or '.join(counts)} {word}" + (f", {' to '.join(ends)} steps" if ends else "")
