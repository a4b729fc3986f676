"""Tables of the scores on slices of the test set, for a leaderboard's page."""

from collections.abc import Mapping, Sequence

from runners.core.markdown import to_table
from runners.leaderboard.rows import LeaderboardRow, Section
from runners.leaderboard.selection import gap_half_width
from tasks import Slice


def to_lines(section: Section) -> list[str]:
    """The tables: slices that are words first, with intervals and reference scores, then the rest.

    Slices by a number, such as a length, are many; their intervals are left out.
    """
    pieces = {piece for row in section.rows for piece in section.slices(row)}
    ordered = sorted(pieces, key=lambda piece: piece.order)
    if len(ordered) < 2:
        return []
    words = [piece for piece in ordered if piece.is_word]
    others = [piece for piece in ordered if not piece.is_word]
    lines = []
    if words:
        notes = section.judge.slice_notes
        told = [f"`{p.key}`: {notes[p.key]}" for p in words if p.key in notes]
        has_intervals = any(row.half_widths for row in section.rows)
        spread = " ± half-width of its 95% interval" if has_intervals else ""
        lines += _table(section, words, spread, _references(section, words))
        lines += ["", f"{'; '.join(told)}."] if told else []
        lines += _gaps(section, words)
    if others:
        lines += _table(section, others)
    return lines


def _table(
    section: Section,
    pieces: Sequence[Slice],
    spread: str = "",
    references: Sequence[Sequence[str]] = (),
) -> list[str]:
    """A table with its title; `spread` are the words for the intervals, "" leaves them out."""
    cells = [
        [f"{row.label} ({row.d_model})", *(_score(section, row, p, bool(spread)) for p in pieces)]
        for row in section.rows
        if section.slices(row)
    ]
    title = f"Test {section.metric.axis} by slice, mean over seeds{spread} (in brackets the width):"
    headers = ["architecture", *(piece.key for piece in pieces)]
    return ["", title, "", *to_table(headers, [*cells, *references])]


def _gaps(section: Section, pieces: Sequence[Slice]) -> list[str]:
    """A table of how far rows of several seeds are behind the best of them."""
    rows = [row for row in section.rows if set(pieces) <= set(row.half_widths)]
    if len(rows) < 2:
        return []
    best, sign = rows[0], 1 if section.metric.higher_is_better else -1

    def gap(row: LeaderboardRow, piece: Slice) -> str:
        value = sign * (best.metrics[piece] - row.metrics[piece])
        sides = [(r.half_widths[piece], r.done) for r in (best, row)]
        width = gap_half_width(*sides)
        return f"{section.metric.format(value)} ± {section.metric.format(width)}"

    cells = [
        [f"{row.label} ({row.d_model})", *(gap(row, piece) for piece in pieces)] for row in rows[1:]
    ]
    title = f"Behind {best.label} ± half-width of the 95% interval (Welch), several seeds alone:"
    headers = ["architecture", *(piece.key for piece in pieces)]
    return ["", title, "", *to_table(headers, cells)]


def _score(section: Section, row: LeaderboardRow, piece: Slice, with_interval: bool) -> str:
    if piece not in row.metrics:
        return "–"
    score = section.metric.format(row.metrics[piece])
    width = row.half_widths.get(piece) if with_interval else None
    return score if width is None else f"{score} ± {section.metric.format(width)}"


def _references(section: Section, pieces: Sequence[Slice]) -> list[list[str]]:
    """The reference predictors that have all of the slices, best first."""
    metric, scores = section.metric, section.judge.reference_scores

    def rank(item: tuple[str, Mapping[Slice, float]]) -> tuple[float, str]:
        return metric.rank(scores[item[0]]), item[0]

    known = section.judge.reference_metrics.items()
    found = [item for item in known if item[0] in scores and set(pieces) <= set(item[1])]
    return [
        [f"*{name}*", *(f"*{metric.format(values[piece])}*" for piece in pieces)]
        for name, values in sorted(found, key=rank)
    ]
