"""Evaluation of a model on a validation or test split.

Letters: R trials, B batch, T time, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import arch
import tasks
from runners.training import position_loss

_Averages = dict[str, tasks.Average]


def averages(
    model: arch.Backbone,
    task: tasks.Task,
    source: tasks.Source,
    given: tasks.Given,
    split: tasks.Split,
    batch_size: int,
) -> list[_Averages]:
    """Sums and counts of each metric over each part of a split; none where a part is too long."""

    def average(index: int, part: tasks.Part) -> _Averages:
        is_long = part.length > task.max_length
        if is_long and not _reads(model, part.length):
            return {}
        num_steps = -(-part.num_examples // batch_size)

        def measure(step: jax.Array) -> _Averages:
            batch = source.eval_batch(given, step, batch_size, index)
            return (_measure_long if is_long else _measure)(model, task, batch)

        def add(step: jax.Array, total: _Averages) -> _Averages:
            return jax.tree.map(jnp.add, total, measure(step))

        return jax.lax.fori_loop(0, num_steps, add, _zeros_of(measure, jnp.int32(0)))

    return [average(index, part) for index, part in enumerate(task.parts(split))]


def values(
    task: tasks.Task, split: tasks.Split, results: Sequence[_Averages]
) -> dict[str, np.ndarray]:
    """Metrics by "split/name": over all parts that have them, and per part where several do.

    results: for each part of the split, on the host.
    """
    parts, found = task.parts(split), {}
    for name in dict.fromkeys(name for result in results for name in result):
        pieces = [
            (part, result[name])
            for part, result in zip(parts, results, strict=True)
            if name in result
        ]
        found[name] = sum((piece for _, piece in pieces[1:]), pieces[0][1]).value
        if len(pieces) > 1:
            found |= {part.slice_of(name).name: piece.value for part, piece in pieces}
    found |= task.derived_metrics(found)
    return {f"{split}/{name}": np.asarray(value) for name, value in found.items()}


def _reads(model: arch.Backbone, length: int) -> bool:
    """Returns True if a model has a recurrent form for this length: filters may end before."""
    try:
        nnx.eval_shape(lambda model: model.initial_state(1, length), model)
    except ValueError:
        return False
    return True


def _measure(model: arch.Backbone, task: tasks.Task, batch: tasks.Batch) -> _Averages:
    """Sums and counts of each metric over a batch."""
    context = arch.Context(segment_ids=batch.segment_ids)
    arguments = (batch.inputs, batch.loss_positions, context, batch.mask)
    if not task.measures_by_position:
        return task.metrics(model(*arguments), batch)
    hidden, embedding = model.hidden(*arguments), model.embedding[...]
    return position_loss.summed(task.metrics, hidden, embedding, batch)


def _measure_long(model: arch.Backbone, task: tasks.Task, batch: tasks.Batch) -> _Averages:
    """As `_measure`, in the recurrent form, so many tokens at a time as models are built for.

    Memory does not grow with the length, states aside.
    """
    batch_size, length = batch.inputs.shape

    def cut(array: jax.Array) -> jax.Array:
        return jnp.moveaxis(array.reshape(batch_size, -1, task.max_length), 1, 0)

    def read(state: Any, chunk: tasks.Batch) -> tuple[Any, _Averages]:
        state, logits = model.extend(state, chunk.inputs)
        return state, task.metrics(logits, chunk)

    state = model.initial_state(batch_size, length)
    _, found = jax.lax.scan(read, state, batch.on(cut, inputs=True))
    return jax.tree.map(lambda pieces: jnp.sum(pieces, 0), found)


def _zeros_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Zeros like what a function returns."""
    shapes = jax.eval_shape(function, *arguments)
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
