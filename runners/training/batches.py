"""Input pipeline: the arrays that the training program makes its batches of, call by call.

All it knows of data is the contract of `tasks.Source`. Resident and streamed rows give the same
batches, as their order is the task's and not the reader's.

Letters: R trials of a population, K steps of one call, B batch.
"""

import dataclasses
import functools
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import tasks
from runners.training.keys import data_key
from runners.training.mixture import parts_of
from runners.training.program import MAX_STEPS, Steps, TrainProgram

_STREAMED_BYTES = 64 * 2**20  # of the rows that are handed to one call


class Batches:
    """Data of one population: its training steps from a given one on, and its evaluations.

    Args:
      program: of the population.
      seeds: of its trials, [R].
      sharding: how the trial axis is divided over devices.
      start: the step at which training begins or goes on.
      stop: the step at which it ends.

    Attributes:
      max_steps: most steps of one call.
      evaluation: resident arrays by split, "validation" and "test".
    """

    def __init__(
        self,
        program: TrainProgram,
        seeds: np.ndarray,
        sharding: NamedSharding,
        start: int,
        stop: int,
    ):
        self._program, self._sharding, self._stream = program, sharding, None
        given = {split: _resident(program, split, sharding) for split in tasks.SPLITS}
        self._train = given.pop("train")
        self.evaluation, self.max_steps = given, MAX_STEPS
        source, batch_size = program.sources["train"], program.batch_size
        streamed = jax.tree.leaves(source.abstract(batch_size).streamed)
        if streamed:
            row_bytes = sum(math.prod(a.shape) * a.dtype.itemsize for a in streamed)
            self.max_steps = max(1, min(MAX_STEPS, _STREAMED_BYTES // (len(seeds) * row_bytes)))
            keys = jax.vmap(data_key)(seeds)
            self._stream = source.stream(keys, batch_size, start, stop, tasks.Shard())

    def steps(self, start: int, stop: int) -> Steps:
        """The input of steps start … stop − 1, which follow those that were asked for before.

        Streamed arrays are filled up to `max_steps`, so that every call has one shape.
        """
        program, given = self._program, self._train
        if self._stream is not None:
            found = [next(self._stream) for _ in range(stop - start)]
            found += found[-1:] * (self.max_steps - len(found))
            rows = jax.tree.map(lambda *steps: np.stack(steps, 1), *found)
            given = dataclasses.replace(given, streamed=jax.device_put(rows, self._sharding))
        parts = parts_of(program.train_parts, program.batch_size, start, stop, MAX_STEPS)
        return Steps(np.int32(start), np.int32(stop), *parts, given)


def zeros(program: TrainProgram) -> Steps:
    """The first step of one trial on rows of zeros, which need no data."""
    given = program.sources["train"].abstract(program.batch_size)
    resident = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), given.resident)
    streamed = jax.tree.map(lambda a: jnp.zeros((1, 1, *a.shape), a.dtype), given.streamed)
    parts = parts_of(program.train_parts, program.batch_size, 0, 1, MAX_STEPS)
    return Steps(np.int32(0), np.int32(1), *parts, tasks.Given(resident, streamed))


def _resident(program: TrainProgram, split: tasks.Split, sharding: NamedSharding) -> tasks.Given:
    source = program.sources[split]
    if not jax.tree.leaves(source.abstract(program.batch_size).resident):
        return tasks.Given()
    described = json.dumps(program.config["task"], sort_keys=True)
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    return tasks.Given(resident=_on_device(_Split(described, split, source), everywhere))


@dataclasses.dataclass(frozen=True)
class _Split:
    """A split of a task, equal to others of the same configuration (JSON)."""

    task: str
    split: tasks.Split
    source: tasks.Source = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=len(tasks.SPLITS))  # the populations of a study share their data
def _on_device(split: _Split, sharding: NamedSharding) -> Any:
    """The resident arrays of a split, on every device."""
    return jax.device_put(split.source.resident(), sharding)
