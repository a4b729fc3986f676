"""Where the rows of stored data come from: splits that fit stay on the device, others are streamed.

Both ways give the same batches, as the order is the task's and not the reader's.
Letters: N rows of a split, R trials of a population, B batch, K steps of one dispatch.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import tasks
from runners.training.epochs import MAX_STEPS_PER_DISPATCH

KEPT_SHARE = 0.25  # of the device's memory, for a split that stays on it
STREAMED_BYTES = 64 * 2**20  # of the rows that are handed to one dispatch
_READ_ROWS = 8192  # at a time, when a split is brought to the device
_INDEX_STEPS = 256  # whose row numbers are computed at a time
_READERS, _STEPS_AHEAD = 4, 64
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Supply:
    """The rows that a program over stored data is given; both empty where it draws its examples.

    Attributes:
      kept: whole splits on the device: rows [N, …] by split and name.
      streamed: the rows of the steps of one dispatch, [R, K, B, …], where the training split is not
        kept.
    """

    kept: dict[str, tasks.Rows] = dataclasses.field(default_factory=dict)
    streamed: tasks.Rows | None = None


def abstract(task: tasks.Task) -> Supply:
    """The shapes of a task's splits, all kept; needs no data."""
    if not isinstance(task, tasks.StoredTask):
        return Supply()
    shapes = {}
    for split, size in task.num_examples.items():
        shapes[split] = {
            name: jax.ShapeDtypeStruct((size, *row.shape), row.dtype)
            for name, row in task.spec.items()
        }
    return Supply(shapes)


class Source:
    """The rows of one population, dispatch by dispatch.

    Args:
      config: the resolved configuration of any of its trials.
      task: its task.
      seeds: [R], of the trials.
      sharding: how the trial axis is divided over devices.
      start: the step at which training begins or goes on.
      total_steps: the step at which it ends.
      stream: never keep the training split on the device.

    Attributes:
      max_steps: most steps of one dispatch.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        task: tasks.Task,
        seeds: np.ndarray,
        sharding: NamedSharding,
        *,
        start: int,
        total_steps: int,
        stream: bool = False,
    ):
        self._supply, self._steps, self.max_steps = Supply(), None, MAX_STEPS_PER_DISPATCH
        if not isinstance(task, tasks.StoredTask):
            return
        streamed = stream or split_bytes(task, "train") > KEPT_SHARE * device_bytes()
        splits = ("validation", "test") if streamed else tasks.SPLITS
        described = json.dumps(config["task"], sort_keys=True)
        everywhere = NamedSharding(sharding.mesh, PartitionSpec())
        self._supply = Supply({split: _on_device(described, split, everywhere) for split in splits})
        if streamed:
            batch_size = config["train"]["batch_size"]
            step_bytes = len(seeds) * batch_size * row_bytes(task)
            self.max_steps = max(1, min(self.max_steps, STREAMED_BYTES // step_bytes))
            self._steps = steps(task, seeds, batch_size, start, total_steps)
            self._sharding = sharding

    @property
    def kept(self) -> Supply:
        """What evaluation needs."""
        return self._supply

    def dispatch(self, count: int) -> Supply:
        """The rows of the next `count` steps; `streamed` is filled up, always of one shape."""
        if self._steps is None:
            return self._supply
        found = [next(self._steps) for _ in range(count)]
        found += found[-1:] * (self.max_steps - count)
        rows = {name: np.stack([step[name] for step in found], 1) for name in found[0]}
        return dataclasses.replace(self._supply, streamed=jax.device_put(rows, self._sharding))


def steps(
    task: tasks.StoredTask, seeds: np.ndarray, batch_size: int, start: int, stop: int
) -> Iterator[tasks.Rows]:
    """The training rows [R, B, …] of steps start … stop − 1, read ahead by threads."""
    import grain

    @jax.jit
    def numbers(first: jax.Array) -> jax.Array:
        def of_trial(seed: jax.Array, step: jax.Array) -> jax.Array:
            return task.train_indices(data_key(seed), step, batch_size)

        at = first + jnp.arange(_INDEX_STEPS)
        return jax.vmap(lambda step: jax.vmap(lambda seed: of_trial(seed, step))(seeds))(at)

    @functools.lru_cache(maxsize=4)
    def block(number: int) -> np.ndarray:
        with jax.default_device(_host()):
            return np.asarray(numbers(np.int32(number * _INDEX_STEPS)))

    def read(step: int) -> tasks.Rows:
        index = block(step // _INDEX_STEPS)[step % _INDEX_STEPS]
        rows = task.read("train", index.ravel())
        return {name: a.reshape(*index.shape, *a.shape[1:]) for name, a in rows.items()}

    options = grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=_STEPS_AHEAD)
    return iter(grain.MapDataset.range(start, stop).map(read).to_iter_dataset(options))


def _host() -> jax.Device | None:
    """The processor: on an accelerator the row numbers would wait behind the training step.

    None, the default device, where JAX_PLATFORMS leaves the processor out.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def data_key(seed: jax.Array) -> jax.Array:
    """The key of a trial's training examples and of their order."""
    return trial_key(seed, "data")


def trial_key(seed: jax.Array, purpose: str) -> jax.Array:
    """Independent keys for a trial's initial parameters, data and dropout."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "data", "dropout").index(purpose))


def row_bytes(task: tasks.StoredTask) -> int:
    """Bytes of one row."""
    return sum(math.prod(row.shape) * row.dtype.itemsize for row in task.spec.values())


def split_bytes(task: tasks.StoredTask, split: tasks.Split) -> int:
    """Bytes of all rows of a split."""
    return task.num_examples[split] * row_bytes(task)


def device_bytes() -> int:
    """Memory of a device; of this machine, or of its container, where the device shares it."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_container_limits()])


def _container_limits() -> list[int]:
    """Bytes that the control group of this container may use, as version 2 and 1 have them."""
    limits = []
    for path in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
            limits.append(int(path.read_text()))
    return limits


@functools.lru_cache(maxsize=len(tasks.SPLITS))  # the populations of a study share their data
def _on_device(described: str, split: tasks.Split, sharding: NamedSharding) -> tasks.Rows:
    """All rows of a split of the task with this configuration (JSON)."""
    config = json.loads(described)
    task = tasks.build(config["name"], **config["options"])
    size = task.num_examples[split]
    rows = {name: np.zeros((size, *row.shape), row.dtype) for name, row in task.spec.items()}
    for first in range(0, size, _READ_ROWS):
        index = np.arange(first, min(size, first + _READ_ROWS))
        for name, values in task.read(split, index).items():
            rows[name][index] = values
    return jax.device_put(rows, sharding)
