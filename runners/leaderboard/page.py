"""A leaderboard as a Markdown page: the protocol in a sentence, tables, pictures, provenance."""

import collections
from collections.abc import Sequence

from runners.core import hyperparameters, naming
from runners.core.markdown import escape, to_table
from runners.leaderboard import published_tables, slice_tables
from runners.leaderboard.published import PublishedTable
from runners.leaderboard.rows import Section
from runners.leaderboard.selection import final_status
from runners.leaderboard.tables import (
    Leaderboard,
    explain_references,
    has_states,
    notes,
    section_table,
)


def to_markdown(
    board: Leaderboard, plots: dict[str, str], published: Sequence[PublishedTable] = ()
) -> str:
    """The whole page.

    Args:
      board: what was measured.
      plots: the caption of each picture by its relative path.
      published: what papers report; a table is shown if one of its tasks, or one that it stands
        beside, was measured.
    """
    lines = [f"# {board.study}", "", _protocol(board)]
    for section in board.sections:
        if section.setting:
            lines += ["", f"## {section.setting}"]
        headers, table = section_table(board, section, wide=True)
        cells = [
            [f"*{cell}*" if line.is_reference and cell else cell for cell in line.cells]
            for line in table
        ]
        lines += ["", *to_table(headers, cells)]
        if explained := explain_references(section, "*{}*"):
            lines += ["", explained]
        lines += slice_tables.to_lines(section)
    if not board.is_of_one_code:
        lines += ["", "† measured with other code than most rows, see [Provenance](#provenance)."]
    for path, caption in plots.items():
        lines += ["", f"![{caption}]({path})", "", f"*{caption}*"]
    lines += published_tables.to_lines(board.sections, published)
    lines += ["", "## How to read it", "", *_reading(board)]
    lines += ["", "## Failures", "", *_failures(board)]
    lines += ["", "## Provenance", "", *_provenance(board)]
    return "\n".join(lines) + "\n"


def to_index(boards: dict[str, Leaderboard]) -> str:
    """A page that links the studies; `boards` maps the name of each folder to its leaderboard."""
    headers = ["study", "task", "architectures", "trials", "first run", "last run"]
    cells = []
    for folder, board in boards.items():
        dates = _dates(board)
        cells.append(
            [
                f"[{board.study}]({folder}/leaderboard.md)",
                ", ".join(sorted({section.task["name"] for section in board.sections})),
                ", ".join(sorted({row.mixer for row in board.rows})),
                str(len(board.records)),
                dates[0] if dates else "–",
                dates[-1] if dates else "–",
            ]
        )
    return "\n".join(["# Studies", "", *to_table(headers, cells, left=3)]) + "\n"


def _protocol(board: Leaderboard) -> str:
    """The protocol in one sentence made from the records."""
    by_name: dict[str, list[set[str]]] = collections.defaultdict(list)
    for section in board.sections:
        by_name[section.task["name"]].append(_options(section))
    each = []
    for name, sections in sorted(by_name.items()):
        options = ", ".join(sorted(set.intersection(*sections)))
        each.append(f"`{name}`" + (f" ({options})" if options else ""))
    task = f"Task{'s' if len(each) > 1 else ''} {', '.join(each)}"
    tried = _range({row.candidates for row in board.rows})
    seeds = _range({row.trials for row in board.rows if row.mean is not None})
    metrics = " or ".join(sorted({section.metric.name for section in board.sections}))
    *others, last = [h.words for h in hyperparameters.TUNED]
    tuned = f"{', '.join(others)} and {last}" if others else last
    return (
        f"{task}, {len(board.records)} trials: for every architecture, of {tried} "
        f"combination{'' if tried == '1' else 's'} of {tuned} the one that lost the fewest trials "
        f"and then has the best mean validation {metrics} over its seeds was chosen, and the table "
        f"shows its test {metrics} as mean ± half-width of the 95% interval (Student's t) over "
        f"{seeds or 'no'} seed{'' if seeds == '1' else 's'}."
    )


def _options(section: Section) -> set[str]:
    flat = naming.flatten(section.task.get("options", {}))
    return {naming.to_text([(key, flat[key])]) for key in flat if flat[key] is not None}


def _range(numbers: set[int]) -> str:
    ends = sorted({min(numbers), max(numbers)}) if numbers else []
    return "–".join(map(str, ends))


def _reading(board: Leaderboard) -> list[str]:
    known = any(section.judge.knows_optimum for section in board.sections)
    lines = [
        "- Rows in italics are reference scores, which are computed, not measured: above the rows "
        "the best possible predictor, where one is known, below them trivial ones. An "
        "architecture whose score is near a trivial predictor's has learned no more than that."
        if known
        else "- Rows in italics are reference scores of simple predictors, which are computed on "
        "the same test set. None of them is the best possible.",
    ]
    if not all(section.metric.higher_is_better for section in board.sections):
        lines.append("- ↓: smaller is better.")
    if has_states(board):
        lines.append(
            "- `state` is what one sequence's recurrent state takes after the longest sequence of "
            "the task. Attention's grows with the sequence, a recurrence's does not."
        )
    lines += [
        "- ± spans the interval that holds the mean over all seeds with 95% confidence, if scores "
        "are normal. Few seeds make it wide; where intervals overlap, the order of rows may be "
        "luck.",
        "- `seeds` 2/3 says that one of three seeds has no score; means are over the others.",
    ]
    if any(row.train_seconds is not None for row in board.rows):
        lines.append(
            "- `seconds` is training time without compilation. Trials that differ only in seed and "
            "tuned values train as one program; each counts its share of that program's time."
        )
    return lines


def _failures(board: Leaderboard) -> list[str]:
    metrics = {naming.to_json(section.task): section.metric for section in board.sections}
    counts = collections.Counter(
        final_status(record, metrics[naming.to_json(record["config"]["task"])])
        for record in board.records
    )
    lines = [
        f"{counts['done']} of {len(board.records)} trials are done, {counts['diverged']} diverged, "
        f"{counts['failed']} failed."
    ]
    found = [note for note in notes(board) if not note.startswith("†")]
    if found:
        lines += ["", "Among the trials in the tables:", "", *(f"- {escape(n)}" for n in found)]
    return lines


def _provenance(board: Leaderboard) -> list[str]:
    sources = [record["provenance"] for record in board.records]
    lines = []
    by_commit: dict[str, set[str]] = collections.defaultdict(set)
    for row in board.rows:
        for name in row.commits:
            by_commit[name].add(row.label)
    for name, rows in sorted(by_commit.items()):
        which = "all rows" if len(by_commit) == 1 else ", ".join(sorted(rows))
        changed = " with uncommitted changes" if name.endswith("+") else ""
        lines.append(f"- Code: `{name.rstrip('+')}`{changed} ({escape(which)})")
    devices = collections.Counter(
        f"{s.get('device_count')} × {s.get('device_kind')}, {s.get('host_platform')}"
        for s in sources
    )
    lines += [f"- Device: {escape(device)}" for device in sorted(devices)]
    versions: dict[str, set[str]] = collections.defaultdict(set)
    for source in sources:
        for package, version in (source.get("versions") or {}).items():
            versions[package].add(str(version))
    if versions:
        texts = (f"{package} {', '.join(sorted(v))}" for package, v in sorted(versions.items()))
        lines.append(f"- Versions: {'; '.join(texts)}")
    if dates := _dates(board):
        lines.append(f"- Run: {' to '.join(sorted({dates[0], dates[-1]}))} (UTC)")
    lines += [
        f"- Command: `{command}`"
        for command in sorted({str(s["command"]) for s in sources if s.get("command")})
    ]
    return lines


def _dates(board: Leaderboard) -> list[str]:
    times = (record["provenance"].get("start_time") for record in board.records)
    return sorted(str(time)[:10] for time in times if time)
