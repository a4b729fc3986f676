"""The table of all architectures in arch/README.md: `python -m runners.catalogue`.

Names and papers are those that the classes declare; the rest is measured on the code by
`runners.core.complexity`. `--check` proves that the page is current.

Exit codes: 0 written or up to date; 1 the page is stale; 2 the request was wrong.
"""

import argparse
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import arch
from runners.core import cli, complexity, files
from runners.core.errors import ConfigError
from runners.core.format import to_bytes
from runners.core.markdown import to_table

FOLDER = Path(arch.__file__).resolve().parent
_MARKERS = ("<!-- catalogue -->", "<!-- /catalogue -->")

_HEADERS = (
    "name",
    "paper",
    "operators",
    "training",
    "one token",
    *(f"state at {length // 1024}k" for length in complexity.STATE_LENGTHS),
    "causal",
    "packs",
)


def fill(text: str) -> str:
    """The text with a current table between its markers.

    Raises:
      ConfigError: the markers are missing.
    """
    (before, opened, rest), closing = text.partition(_MARKERS[0]), _MARKERS[1]
    _, closed, after = rest.partition(closing)
    if not (opened and closed):
        raise ConfigError(f"the page has no place for the table: expected {' … '.join(_MARKERS)}")
    table = to_table(list(_HEADERS), [_cells(name) for name in arch.names()], left=3)
    return "\n".join([before + opened, "", *table, "", closed + after])


def run(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    parser = cli.Parser(
        prog="python -m runners.catalogue",
        description="Writes the table of all architectures into arch/README.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it is stale")
    parser.add_argument("--readme", type=Path, default=FOLDER / "README.md", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    console = cli.console()
    old = options.readme.read_text(encoding="utf-8")
    new = fill(old)
    if options.check and old != new:
        console.print(f"{options.readme} is stale: run python -m runners.catalogue", soft_wrap=True)
        return 1
    if old != new:
        files.replace(options.readme, new.encode())
        console.print(f"wrote {options.readme}", soft_wrap=True)
    return 0


def _cells(name: str) -> list[str]:
    """Row of an architecture; links are relative to the folder `arch`."""
    cls, found = arch.get(name), complexity.summary(name)
    file = os.path.relpath(inspect.getsourcefile(cls), FOLDER)
    state = found.state or [None] * len(complexity.STATE_LENGTHS)
    return [
        f"[{name}]({file})",
        f"[{cls.paper}]({cls.reference})",
        ", ".join(f"`{operator}`" for operator in found.operators) or "–",
        f"O({found.training})",
        "–" if found.token is None else f"O({found.token})",
        *map(to_bytes, state),
        "yes" if found.causal else "no",
        "yes" if found.packs else "no",
    ]


if __name__ == "__main__":
    cli.main("catalogue", run, sys.argv[1:])
