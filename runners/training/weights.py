"""The trained weights of trials, for whoever asks for them with `--keep_weights`.

`<workdir>/weights/<trial id>` holds what a trial ended with, one array for each variable of its
model, written by orbax: the folder appears whole or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx

import arch
import tasks
from runners.core.errors import ResultsError
from runners.training.checkpoint import by_path
from runners.training.model import build_model

FOLDER = "weights"


def save(workdir: Path, ids: Sequence[str], *variables: nnx.State) -> None:
    """Writes the variables of a population's trials; leaves have a leading axis [R]."""
    values = by_path(jax.device_get(nnx.merge_state(*variables)))
    with ocp.StandardCheckpointer() as checkpointer:
        for r, trial in enumerate(ids):
            own = {path: value[r] for path, value in values.items()}
            checkpointer.save((workdir / FOLDER / trial).absolute(), own, force=True)


def kept(workdir: Path, ids: Iterable[str]) -> list[str]:
    """Those of the trials whose weights were kept.

    Raises:
      ResultsError: there are none.
    """
    found = [trial for trial in ids if (workdir / FOLDER / trial).is_dir()]
    if not found:
        raise ResultsError(
            f"no weights of trained models in {str(workdir)!r}: run its study with --keep_weights "
            "(and --rerun, if it is done), or name another folder with --workdir"
        )
    return found


def load(workdir: Path, record: Mapping[str, Any]) -> tuple[tasks.Task, arch.Backbone]:
    """The task of a trial and its model as trained.

    Raises:
      ResultsError: its weights were not kept, or do not fit the model of its configuration.
    """
    config, folder = record["config"], workdir / FOLDER / record["id"]
    if not folder.is_dir():
        raise ResultsError(
            f"no weights of trial {record['id']} in {str(workdir / FOLDER)!r}: run the study again "
            "with --keep_weights --rerun"
        )
    task = tasks.build(config["task"]["name"], **config["task"]["options"])
    abstract = nnx.eval_shape(lambda: build_model(config, task, nnx.Rngs(0)))
    graphdef, variables = nnx.split(abstract)
    like = by_path(variables)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            values = checkpointer.restore(folder.absolute(), like)
        leaves = [values[path] for path in like]
    except Exception as error:  # a damaged file makes orbax raise many types
        raise ResultsError(
            f"the weights in {str(folder)!r} cannot be read ({type(error).__name__}): move that "
            "folder away and run the study again with --keep_weights --rerun"
        ) from error
    return task, nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(variables), leaves))
