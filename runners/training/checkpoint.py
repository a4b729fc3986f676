"""Checkpoints of a population: device state and the host's record, together or not at all."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from runners.core.errors import ConfigError


class Checkpoints:
    """The newest checkpoints of one population, written atomically and in the background.

    Args:
      folder: where they stand; what a killed writer left behind is cleared by orbax.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
        """Saves the state (a pytree of arrays) and the record (JSON) after `step` steps."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(by_path(state)), record=ocp.args.JsonSave(record)
            ),
        )

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest state, shaped and placed as `like`, and its record; None if there is none.

        Raises:
          ConfigError: the checkpoint is damaged, or of another shape.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(by_path(abstract)),
                    record=ocp.args.JsonRestore(),
                ),
            )
            leaves = [restored["state"][key] for key in by_path(abstract)]
            return jax.tree.unflatten(jax.tree.structure(like), leaves), restored["record"]
        except Exception as error:  # a damaged file makes orbax raise many types
            raise ConfigError(
                f"checkpoint {self._folder / str(step)} cannot be read ({type(error).__name__}): "
                "move that folder away and run again; training goes on from the one before it"
            ) from error

    def close(self) -> None:
        """Waits until what is being written stands on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths: orbax keeps dicts, and not every class."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
