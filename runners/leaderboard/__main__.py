"""Rebuilds every table and plot from the trial files: `python -m runners.leaderboard`.

The working directory is one study (it has a folder `trials`) or a folder of studies. Each study
gets `leaderboard.md`, `leaderboard.csv` and `plots/`, a folder of studies a `leaderboard.md` that
links them. The same trial files give the same bytes, so the pages are committed beside the records
and `--check` proves that they belong together.

Rows come from trial files alone. Where a task is one of which papers report scores, with the
published settings, these follow in a table of their own (`results/published/*.json`), and so do
scores that the file sets beside the task.

Exit codes: 0 written or up to date; 1 a page is stale or missing; 2 the request was wrong.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from runners.core import files
from runners.core.errors import ResultsError
from runners.leaderboard import build, plots
from runners.leaderboard.tables import Leaderboard, print_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m runners.leaderboard",
        description="Rebuilds every table and plot from the trial files.",
    )
    parser.add_argument("--workdir", default="results", help="a study, or a folder of studies")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a file is stale"
    )
    options = parser.parse_args(arguments)
    try:
        return _run(Path(options.workdir), options.check)
    except ResultsError as error:
        _say(Console(stderr=True), str(error))
        return 2


def _run(workdir: Path, check: bool) -> int:
    studies = [workdir] if (workdir / "trials").is_dir() else _studies(workdir)
    if check:
        stale = [line for study in studies for line in _stale(study, build.load(study))]
        if workdir not in studies:
            stale += _differing(workdir, build.index(studies))
        for line in stale:
            _say(Console(stderr=True), line)
        return 1 if stale else 0
    console = Console()
    written: list[Path] = []
    for study in studies:
        board = build.build(study)
        print_table(board, console)
        written += board.files
    if workdir not in studies:
        for name, content in build.index(studies).items():
            files.replace(workdir / name, content)
            written.append(workdir / name)
    for path in written:
        _say(console, f"wrote {path}")
    return 0


def _studies(workdir: Path) -> list[Path]:
    """The folders in `workdir` that hold trials."""
    try:
        children = sorted(workdir.iterdir())
    except OSError as error:
        raise ResultsError(
            f"cannot read {os.fspath(workdir)!r}: {error.strerror}; name a study, or a folder of "
            "studies, with --workdir"
        ) from error
    studies = [child for child in children if any((child / "trials").glob("[!.]*.json"))]
    if not studies:
        raise ResultsError(
            f"no trials in {os.fspath(workdir)!r}: expected a folder trials in it or in one of its "
            "folders; run a sweep first, or name another folder with --workdir"
        )
    return studies


def _stale(study: Path, board: Leaderboard) -> list[str]:
    """Flaws of the committed files of a study, a line each.

    The bytes of a picture depend on matplotlib's version: it must only be there.
    """
    missing = [study / name for name in plots.captions(board) if not (study / name).is_file()]
    return _differing(study, build.pages(board)) + [_advice(path, "is missing") for path in missing]


def _differing(folder: Path, contents: dict[str, bytes]) -> list[str]:
    lines = []
    for name, content in contents.items():
        path = folder / name
        if not path.is_file():
            lines.append(_advice(path, "is missing"))
        elif path.read_bytes() != content:
            lines.append(_advice(path, "does not match the trial files"))
    return lines


def _advice(path: Path, flaw: str) -> str:
    return f"{path} {flaw}: run python -m runners.leaderboard"


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
