"""Batches of examples, and the splits that they belong to.

Letters: B batch, T time, P supervised positions per example, V vocabulary, F features.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import jax

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of examples.

    Attributes:
      inputs: [B, T] int ids, or [B, T, F] features; for pairs of sequences [B, 2, T] int ids.
      loss_positions: [B, P] int, where the model is judged; None is everywhere (P = T). A whole
        sequence counts as one (P = 1).
      targets: [B, P] int, what it should say there.
      weights: [B, P] float, 0 where a position is only filler.
      mask: optional [B, T] (pairs [B, 2, T]) bool, False at padding.
      segment_ids: optional [B, T] int, the document that a token belongs to, where a row holds
        several; 0 is padding, and nothing crosses a border (`arch.Context`).
      truth: optional [B, P, V] float, the distribution that the targets were drawn from.
      slices: optional, by name [B, P] float: weights of positions in slices that are measured.
    """

    inputs: jax.Array
    loss_positions: jax.Array | None
    targets: jax.Array
    weights: jax.Array
    mask: jax.Array | None = None
    segment_ids: jax.Array | None = None
    truth: jax.Array | None = None
    slices: Mapping[str, jax.Array] | None = None

    def on(self, cut: Callable[[jax.Array], jax.Array], *, inputs: bool = False) -> "Batch":
        """The batch with all arrays over supervised positions cut; `inputs` cuts those over T, too.

        cut: [B, P, …] → [B, p, …].
        """
        names = ["loss_positions", "targets", "weights", "truth", "slices"]
        names += ["inputs", "mask", "segment_ids"] if inputs else []
        changed = {name: jax.tree.map(cut, getattr(self, name)) for name in names}
        return dataclasses.replace(self, **changed)
