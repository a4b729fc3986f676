"""Builds the tables and plots of one study, and the index of a folder of studies."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from runners.core import figures, files, references, store
from runners.core.errors import ResultsError
from runners.leaderboard import page, plots, published, tables
from runners.leaderboard.selection import select
from runners.leaderboard.tables import Leaderboard


def build(workdir: str | os.PathLike[str]) -> Leaderboard:
    """Writes the tables and plots of one study into its folder.

    Raises:
      ResultsError: there are no trials, one is corrupt, or the folder cannot be written.
    """
    workdir = Path(workdir)
    board = load(workdir)
    contents: dict[str, bytes] = dict(pages(board))
    contents |= {name: figures.render(drawing) for name, drawing in plots.draw_all(board).items()}
    for name, content in contents.items():
        files.replace(workdir / name, content)
    return dataclasses.replace(board, files=tuple(workdir / name for name in contents))


def publish(workdir: Path, console: Console) -> None:
    """Builds and prints the leaderboard of a study; does nothing before its first trial is done."""
    if not store.read_all(workdir):
        return
    board = build(workdir)
    tables.print_table(board, console)
    console.print(f"Written: {', '.join(map(str, board.files))}", soft_wrap=True)


def load(study: Path) -> Leaderboard:
    """The results of a study; raises ResultsError if it has no trials, or a corrupt one."""
    records = store.read_all(study)
    if not records:
        raise ResultsError(
            f"no trials in {os.fspath(study / 'trials')!r}: run a sweep first, or name another "
            "folder with --workdir"
        )
    name = ", ".join(sorted({record["study"] for record in records}))
    return Leaderboard(name, tuple(records), select(records, references.read(study)))


def pages(board: Leaderboard) -> dict[str, bytes]:
    """The text files of a study by name."""
    text = page.to_markdown(board, plots.captions(board), published.read_all())
    return {
        "leaderboard.md": text.encode(),
        "leaderboard.csv": tables.to_csv(board).encode(),
    }


def index(studies: Sequence[Path]) -> dict[str, bytes]:
    """The page that links several studies, by name."""
    text = page.to_index({study.name: load(study) for study in studies})
    return {"leaderboard.md": text.encode()}
