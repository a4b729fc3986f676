"""Tasks over stored data: rows that are read by their number, in an order that a key decides.

Letters: B batch, T time, N rows of a split.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tasks.interface import Batch, Part, Split, Task, part_key
from tasks.order import epoch_and_position, permuted

Rows = dict[str, Any]  # arrays by name, each with the rows as its leading axis
Report = Callable[[int, int], None]  # how many rows there are now, and how many there will be


class DataMissingError(Exception):
    """Data are neither here nor to be had: one line on what is needed, and how to provide it."""


class StoredTask(Task):
    """Base class of the tasks whose examples are rows of a data set, classified as a whole.

    A subclass sets, besides what every task sets, `num_classes`, `num_examples` (rows by split) and
    `spec` (shape and dtype of one row, by name), and defines `read`; where data must be brought
    first, `prepare`; where rows are not {"inputs", "label"} with an optional "length", `batch`.
    Everything but `prepare` and `read` must work without the data, so that a study can be planned
    before they are there.

    Attributes:
      num_examples: N of every split.
      spec: what one row holds: "inputs" [T] or [2, T] uint8, "label" and, where rows are padded,
        "length" int32.
    """

    needs_causal: ClassVar[bool] = False
    head: ClassVar[str] = "class"

    num_examples: dict[str, int]
    spec: dict[str, jax.ShapeDtypeStruct]

    def prepare(self, report: Report | None = None) -> None:
        """Brings the data to this machine, once: generates or downloads what is not here.

        Args:
          report: told, now and then, how many rows are written, of how many.

        Raises:
          DataMissingError: that is impossible.
        """

    def read(self, split: Split, indices: np.ndarray) -> Rows:
        """The rows of a split with these numbers [n], as numpy arrays [n, …] like `spec`."""
        raise TypeError(f"{type(self).__name__} must define read(split, indices)")

    def batch(self, rows: Rows) -> Batch:
        """The rows [B, …] as a batch; traced."""
        mask = None
        if "length" in rows:
            mask = jnp.arange(rows["inputs"].shape[-1]) < rows["length"][..., None]
        targets = rows["label"].astype(jnp.int32)[:, None]
        return Batch(
            inputs=self.features(rows["inputs"]),
            positions=jnp.zeros_like(targets),
            targets=targets,
            weights=jnp.ones(targets.shape),
            mask=mask,
        )

    def features(self, inputs: jax.Array) -> jax.Array:
        """Inputs of the model from stored bytes: the ids themselves, if nothing else is said."""
        return inputs.astype(jnp.int32)

    def parts(self, split: Split) -> tuple[Part, ...]:
        """One part, as all rows are padded to one length."""
        return (Part("", self.max_length, self.num_examples[split]),)

    def train_indices(self, key: jax.Array, step: jax.Array, batch_size: int) -> jax.Array:
        """The numbers [B] of the rows of training batch `step`; epochs as in `Task.train_batch`."""
        order_key = part_key(key, "train", 0)
        size = self.num_examples["train"]

        def row(epoch: jax.Array, position: jax.Array) -> jax.Array:
            return permuted(jax.random.fold_in(order_key, epoch), position, size)

        return jax.vmap(row)(*epoch_and_position(step, batch_size, size))

    def eval_rows(self, rows: Rows, step: jax.Array, batch_size: int) -> Batch:
        """Batch `step` of a whole split's rows [N, …]; traced.

        Surplus rows of the last batch have weight 0, as in `Task.eval_batch`.
        """
        size = rows["label"].shape[0]
        index = step * batch_size + jnp.arange(batch_size)
        batch = self.batch({name: a[jnp.minimum(index, size - 1)] for name, a in rows.items()})
        return dataclasses.replace(batch, weights=batch.weights * (index < size)[:, None])

    def train_batch(self, key: jax.Array, step: jax.Array, batch_size: int, part: int = 0) -> Batch:
        """As in `Task`, but read from the store, which no program can do while it runs."""
        index = self.train_indices(key, jnp.int32(step), batch_size)
        return self.batch(self.read("train", np.asarray(index)))

    def eval_batch(self, step: jax.Array, batch_size: int, split: Split, part: int = 0) -> Batch:
        """As in `Task`, but read from the store, which no program can do while it runs."""
        rows = self.read(split, np.arange(self.num_examples[split]))
        return self.eval_rows({name: jnp.asarray(a) for name, a in rows.items()}, step, batch_size)
