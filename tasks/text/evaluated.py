"""Rows that language models are evaluated on, with the slices they belong to.

Letters: B batch.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from tasks.batch import Batch, Split
from tasks.sources import Given, Source


@dataclasses.dataclass(frozen=True)
class EvaluatedRows(Source):
    """Rows of a validation or test split of a language-modelling task, kept on the device."""

    task: Any  # tasks.lm.LanguageModelling
    split: Split

    def abstract(self, batch_size: int) -> Given:
        found = []
        for part in self.task.parts(self.split):
            spec = self.task.row_spec(part.length)
            if part.length == self.task.max_length:
                spec["ar_hits"] = jax.ShapeDtypeStruct((part.length,), jnp.bool_)
            shape = functools.partial(_stacked, part.num_examples)
            found.append({name: shape(array) for name, array in spec.items()})
        return Given(resident=tuple(found))

    def resident(self) -> Any:
        return tuple(
            self.task.eval_set(self.split, i) for i in range(len(self.abstract(0).resident))
        )

    def eval_batch(self, given: Given, step: jax.Array, batch_size: int, part: int) -> Batch:
        rows = given.resident[part]
        size = rows["length"].shape[0]
        index = step * batch_size + jnp.arange(batch_size)
        rows = {name: array[jnp.minimum(index, size - 1)] for name, array in rows.items()}
        batch = self.task.batch(rows)
        shape = batch.weights.shape
        each = {
            name: jnp.broadcast_to(own, shape).astype(jnp.float32)
            for name, own in self.task.slices(rows).items()
        }
        weights = batch.weights * (index < size)[:, None]
        return dataclasses.replace(batch, weights=weights, segment_ids=None, slices=each)


def _stacked(rows: int, row: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, *row.shape), row.dtype)
