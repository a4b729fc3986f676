"""`python -m runners.probe`: which heads of trained models look where n-grams stood before?

    python -m runners.sweep --config mqar.py --keep_weights [--rerun]
    python -m runners.probe --workdir results/mqar

A head's mixing matrix M[t, s] says how much of its output at t depends on its input at s
(`arch.model.attribution`). Its n-gram weight is the share of row t, s < t, that falls on tokens
whose n predecessors are the last n tokens, t's own among them: where an in-context n-gram predictor
would look for what comes next (Akyürek et al. 2024, arXiv 2401.12973, section 5). Rows count where
the model is judged and there is such a token. Beside it stands the share that falls there if a head
looks everywhere alike.

One trial of each row of the leaderboard is looked at, that of the smallest seed whose weights were
kept. The table, `probe.json` and the pictures go to the study's folder.

Exit codes: 0 done; 2 the request was wrong, or the folder cannot be written.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from runners.core import cli, files, store
from runners.leaderboard.selection import representatives
from runners.probe import plot
from runners.probe.heads import ORDERS, Head, probe
from runners.training import weights


def run(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    parser = cli.Parser(
        prog="python -m runners.probe",
        description="Which heads of trained models look where n-grams stood before?",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", type=Path, required=True, help="a study, with its weights")
    workdir = parser.parse_args(argv).workdir
    console = cli.console()
    found: list[Head] = []
    records = store.read_all(workdir)
    kept = weights.kept(workdir, (record["id"] for record in records))
    for name, record in representatives(records, kept):
        task, model = weights.load(workdir, record)
        console.print(f"{name}, seed {record['config']['seed']}", soft_wrap=True, markup=False)
        found += probe(model, task, record["config"], name)
    console.print(_table(found))
    contents = {
        "probe.json": json.dumps([_as_json(head) for head in found], indent=1).encode(),
        "plots/probe.png": plot.scores(found),
        "plots/probe-heads.png": plot.examples(found),
    }
    for path, content in contents.items():
        files.replace(workdir / path, content)
        console.print(f"wrote {workdir / path}", soft_wrap=True, markup=False)
    return 0


def _table(found: Sequence[Head]) -> Table:
    table = Table("model", "layer", "mixer", "head", box=None)
    for n in ORDERS:
        table.add_column(f"{n}-gram (uniform)", justify="right")
    for head in found:
        cells = (f"{w:.2f} ({u:.2f})" for w, u in zip(head.weight, head.uniform, strict=True))
        table.add_row(head.model, str(head.layer), head.mixer, str(head.head), *cells)
    return table


def _as_json(head: Head) -> dict[str, Any]:
    fields = dataclasses.asdict(head)
    del fields["tokens"], fields["example"]  # for the pictures
    return fields


if __name__ == "__main__":
    cli.main("probe", run, sys.argv[1:])
