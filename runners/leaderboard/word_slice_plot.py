"""Plot of the slices that are words, such as associative recall hits against other tokens."""

from matplotlib import axes, figure

from runners.core import figures
from runners.leaderboard import panels
from runners.leaderboard.rows import Section
from runners.leaderboard.tables import Leaderboard
from tasks import Slice

NAME = "plots/word-slices.png"


def caption(board: Leaderboard) -> str | None:
    """Caption of `draw`; None where no slice of a study is a word."""
    if not _sections(board):
        return None
    notes = {k: v for section in board.sections for k, v in section.judge.slice_notes.items()}
    told = "; ".join(f"{name}: {note}" for name, note in notes.items())
    many = any(row.half_widths for row in board.rows)
    spread = ", 95% interval over seeds" if many else ""
    return (
        "Test scores on slices of the test set, each architecture at its best (width, options, "
        f"learning rate){spread}; in grey the reference predictors. {told}."
    )


def draw(board: Leaderboard) -> figure.Figure:
    """Draws a panel for each section and slice, at most three in a row; the best row on top."""
    wanted = [(s, piece) for s in _sections(board) for piece in _words(s)]
    across = min(3, len(wanted))
    down = -(-len(wanted) // across)
    most = max(len(panels.best_rows(section)) for section in _sections(board))
    size = (3.2 * across + 1.4, (0.32 * most + 1.3) * down)
    drawing, grid = figures.grid(across, down, len(wanted), size)
    look = panels.look(board)
    for panel, (section, piece) in zip(grid, wanted, strict=True):
        rows = [row for row in panels.best_rows(section) if piece in row.metrics][::-1]
        for place, row in enumerate(rows):
            colour, marker = look[row.mixer]
            width = row.half_widths.get(piece, 0.0)
            panel.errorbar(
                row.metrics[piece], place, xerr=width, color=colour, marker=marker, capsize=3
            )
        panel.set_yticks(range(len(rows)), [row.label for row in rows])
        panel.set_ylim(-0.6, len(rows) + 0.4)  # room for the names of the references
        if not panel.get_subplotspec().is_first_col() and len(_sections(board)) == 1:
            panel.tick_params(labelleft=False)
        panel.set_title(piece.key, loc="left")
        panel.set_xlabel(f"test {section.metric.axis}")
        _draw_references(panel, section, piece)
    return drawing


def _draw_references(panel: axes.Axes, section: Section, piece: Slice) -> None:
    """Dashed lines for the reference predictors, named along them, that are not far off."""
    near = panels.near_references(section, section.rows)
    low, high = panel.get_xlim()
    known = section.judge.reference_metrics.items()
    values = {name: found[piece] for name, found in known if name in near and piece in found}
    for name, value in values.items():
        panel.axvline(value, color=figures.GREY, lw=1, ls=(0, (5, 3)), zorder=0.9)
        panel.annotate(
            name,
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-2, -3),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            size=7,
            color=figures.GREY,
        )
    if values:
        low, high = min(low, *values.values()), max(high, *values.values())
        panel.set_xlim(low - 0.06 * (high - low), high + 0.03 * (high - low))


def _sections(board: Leaderboard) -> list[Section]:
    return [section for section in board.sections if _words(section)]


def _words(section: Section) -> list[Slice]:
    """The slices of the primary metric that are words."""
    found = {piece for row in section.rows for piece in section.slices(row) if piece.is_word}
    return sorted(found, key=lambda piece: piece.order)
