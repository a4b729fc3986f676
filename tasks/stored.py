"""Tasks over stored data: rows that are read by their number, in an order that a key decides.

Letters: B batch, T time, N rows of a split.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tasks.batch import Batch, Split
from tasks.interface import Part, Task, part_key
from tasks.order import epoch_and_position, permuted
from tasks.sources import Given, Shard, Source

Rows = dict[str, Any]  # arrays by name, each with the rows as its leading axis
_READ_ROWS = 8192  # at a time, when a split is brought to the device
_INDEX_STEPS = 256  # whose row numbers are computed at a time
_READERS, _STEPS_AHEAD = 4, 64


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

    @property
    def num_stored_rows(self) -> int:
        return sum(self.num_examples.values())

    def source(self, split: Split, resident_bytes: int | None = None) -> Source:
        row_bytes = sum(math.prod(row.shape) * row.dtype.itemsize for row in self.spec.values())
        size = self.num_examples[split] * row_bytes
        if split == "train" and resident_bytes is not None and size > resident_bytes:
            return StreamedRows(self)
        return ResidentRows(self, split)

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
            loss_positions=jnp.zeros_like(targets),
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
        size = jax.tree.leaves(rows)[0].shape[0]
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


@dataclasses.dataclass(frozen=True)
class ResidentRows(Source):
    """All rows of a split, kept on the device and gathered there."""

    task: StoredTask
    split: Split

    def abstract(self, batch_size: int) -> Given:
        size = self.task.num_examples[self.split]
        return Given(resident=_shapes(self.task, size))

    def resident(self) -> Rows:
        """Reads the rows in pieces, so that no second copy of them all is made."""
        size = self.task.num_examples[self.split]
        rows = {name: np.zeros(a.shape, a.dtype) for name, a in _shapes(self.task, size).items()}
        for first in range(0, size, _READ_ROWS):
            index = np.arange(first, min(size, first + _READ_ROWS))
            for name, values in self.task.read(self.split, index).items():
                rows[name][index] = values
        return rows

    def train_batch(
        self, given: Given, key: jax.Array, step: jax.Array, batch_size: int, part: int
    ) -> Batch:
        index = self.task.train_indices(key, step, batch_size)
        return self.task.batch({name: rows[index] for name, rows in given.resident.items()})

    def eval_batch(self, given: Given, step: jax.Array, batch_size: int, part: int) -> Batch:
        return self.task.eval_rows(given.resident, step, batch_size)


@dataclasses.dataclass(frozen=True)
class StreamedRows(Source):
    """Training rows that are read ahead by threads, in the order that `ResidentRows` gives them."""

    task: StoredTask

    def abstract(self, batch_size: int) -> Given:
        return Given(streamed=_shapes(self.task, batch_size))

    def stream(
        self, keys: jax.Array, batch_size: int, start: int, stop: int, shard: Shard
    ) -> Iterator[Rows]:
        import grain

        own = shard.slice(batch_size)

        @jax.jit
        def numbers(first: jax.Array) -> jax.Array:
            """Row numbers [K, R, B / hosts] of the steps from `first` on."""

            def of_trial(key: jax.Array, step: jax.Array) -> jax.Array:
                return self.task.train_indices(key, step, batch_size)[own]

            at = first + jnp.arange(_INDEX_STEPS)
            return jax.vmap(lambda step: jax.vmap(lambda key: of_trial(key, step))(keys))(at)

        @functools.lru_cache(maxsize=4)
        def block(number: int) -> np.ndarray:
            with jax.default_device(_host()):
                return np.asarray(numbers(np.int32(number * _INDEX_STEPS)))

        def read(step: int) -> Rows:
            index = block(step // _INDEX_STEPS)[step % _INDEX_STEPS]
            rows = self.task.read("train", index.ravel())
            return {name: a.reshape(*index.shape, *a.shape[1:]) for name, a in rows.items()}

        options = grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=_STEPS_AHEAD)
        return iter(grain.MapDataset.range(start, stop).map(read).to_iter_dataset(options))

    def train_batch(
        self, given: Given, key: jax.Array, step: jax.Array, batch_size: int, part: int
    ) -> Batch:
        return self.task.batch(given.streamed)


def _shapes(task: StoredTask, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct((rows, *row.shape), row.dtype) for name, row in task.spec.items()
    }


def _host() -> jax.Device | None:
    """The processor: on an accelerator the row numbers would wait behind the training step.

    None, the default device, where JAX_PLATFORMS leaves the processor out.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
