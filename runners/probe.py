"""`python -m runners.probe`: which heads of trained models look where n-grams stood before?

    python -m runners.sweep --config mqar.py --keep_weights [--rerun]
    python -m runners.probe --workdir results/mqar

A head's mixing matrix M[t, s] says how much of its output at t depends on its input at s
(`arch.mixing`). Its n-gram weight is the share of row t, s < t, that falls on tokens whose n
predecessors are the last n tokens, t's own among them: where an in-context n-gram predictor would
look for what comes next (Akyürek et al. 2024, arXiv 2401.12973, section 5). Rows count where the
model is judged and there is such a token. Beside it stands the share that falls there if a head
looks everywhere alike.

One trial of each row of the leaderboard is looked at, that of the smallest seed whose weights were
kept. The table, `probe.json` and the pictures go to the study's folder.

Exit codes: 0 done; 2 the request was wrong, or the folder cannot be written.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

import arch
from arch import mixing
from arch.layout import layer_list
from runners import cli, files, probe_plot, results, weights
from runners.results import Record, ResultsError
from runners.selection import select
from tasks import ngrams

ORDERS = (1, 2, 3)
SEQUENCES = 16  # of the test set: some hundred rows for each head


@dataclasses.dataclass(frozen=True)
class Head:
    """What one head looks at.

    Attributes:
      model: the architecture's name in the leaderboard.
      layer: from 1.
      mixer: its architecture.
      head: from 1.
      weight: for n = 1, 2, 3 the mean share on tokens that followed the current n-gram.
      uniform: the same of a head that looks everywhere alike.
      tokens: the first sequence up to the last token at which the model is judged, [L].
      example: M of it, rows normalised over s < t, [L, L].
    """

    model: str
    layer: int
    mixer: str
    head: int
    weight: tuple[float, ...]
    uniform: tuple[float, ...]
    tokens: np.ndarray
    example: np.ndarray


def followers(tokens: jax.Array, n: int) -> jax.Array:
    """[t, s], s < t: do the n tokens before s equal the last n tokens at t? [T, T] bool."""
    after = jnp.roll(ngrams.occurrences(tokens, n), 1, axis=1)
    return after & jnp.tri(tokens.shape[0], k=-1, dtype=bool)


def shares(
    M: jax.Array, tokens: jax.Array, counted: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over rows for each order, [3] each: the weight, the uniform weight, the rows.

    M: [T, T], rows normalised over s < t; tokens: [T]; counted: [T] bool.
    """
    found = jnp.stack([followers(tokens, n) for n in ORDERS])
    rows = counted & found.any(-1)
    past = jnp.maximum(jnp.arange(tokens.shape[0]), 1)
    return (
        jnp.sum(rows * jnp.sum(M * found, -1), -1),
        jnp.sum(rows * found.sum(-1) / past, -1),
        rows.sum(-1),
    )


def normalised(M: jax.Array) -> jax.Array:
    """Rows that sum to 1 over s < t; a row that sees nothing of the past stays zero."""
    M = jnp.tril(M, -1)
    total = M.sum(-1, keepdims=True)
    return M / jnp.where(total > 0, total, 1)


def probe(model: arch.Backbone, task: Any, config: dict[str, Any], name: str) -> Iterator[Head]:
    """Every head of every layer of a model on the first sequences of the test set."""
    batch = task.eval_batch(0, SEQUENCES, "test")
    judged = jnp.zeros(batch.inputs.shape).at[jnp.arange(SEQUENCES)[:, None], batch.positions]
    counted = judged.add(batch.weights) > 0
    shown = 1 + int(np.flatnonzero(counted[0])[-1])

    @jax.jit
    def looks_at(mixer: Any, x: jax.Array, tokens: jax.Array, keys: jax.Array) -> Any:
        def one(inputs: tuple) -> tuple:
            x, tokens, counted, key = inputs
            context = arch.Context(tokens=tokens[None])
            M = normalised(mixing.mixing_matrix(mixer, x[None], context, key))
            return M, shares(M, tokens, counted)

        M, sums = jax.lax.map(one, (x, tokens, counted, keys))
        return M[0], jax.tree.map(lambda a: a.sum(0), sums)

    settings = config["model"]
    names = layer_list(settings["mixer"], settings["num_layers"], settings["mixer_options"])
    keys = jax.random.split(jax.random.key(0), SEQUENCES)
    layers = zip(names, mixing.layers(model, batch.inputs), strict=True)
    for layer, ((mixer_name, _), (block, x)) in enumerate(layers, 1):
        h = block.mixer_norm(x)
        for head, mixer in enumerate(mixing.heads(block.mixer), 1):
            example, (weight, uniform, rows) = looks_at(mixer, h, batch.inputs, keys)
            rows = np.maximum(rows, 1)
            yield Head(
                name,
                layer,
                mixer_name,
                head,
                tuple(map(float, weight / rows)),
                tuple(map(float, uniform / rows)),
                np.asarray(batch.inputs[0, :shown]),
                np.asarray(example[:shown, :shown]),
            )


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
    for name, record in _trials(workdir):
        task, model = weights.load(workdir, record)
        console.print(f"{name}, seed {record['config']['seed']}", soft_wrap=True, markup=False)
        found += probe(model, task, record["config"], name)
    console.print(_table(found))
    contents = {
        "probe.json": json.dumps([_as_json(head) for head in found], indent=1).encode(),
        "plots/probe.png": probe_plot.scores(found),
        "plots/probe-heads.png": probe_plot.examples(found),
    }
    for path, content in contents.items():
        files.replace(workdir / path, content)
        console.print(f"wrote {workdir / path}", soft_wrap=True, markup=False)
    return 0


def _trials(workdir: Path) -> list[tuple[str, Record]]:
    """One trial with weights of each row of the leaderboard, best first.

    Raises:
      ResultsError: there is none.
    """
    records = results.read_all(workdir)
    by_id = {record["id"]: record for record in records}
    kept = []
    for row in (row for section in select(records) for row in section.rows):
        own = [i for i in row.ids if (workdir / weights.FOLDER / i).is_dir()]
        kept += [(row.label, by_id[own[0]])] if own else []
    if not kept:
        raise ResultsError(
            f"no weights of trained models in {str(workdir)!r}: run its study with --keep_weights "
            "(and --rerun, if it is done), or name another folder with --workdir"
        )
    return kept


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
