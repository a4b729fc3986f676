"""Sources: where the examples of a split come from, and how they reach the training program.

This is the contract between tasks and the trainer, which asks a task for a source and never for its
class. Examples are drawn inside the program (`tasks.interface.Drawn`), gathered there from rows
that stay on the device, or made of rows that are read while it runs (both in `tasks.stored`). A
new kind of data is a new subclass of `Source`, which the task's `source` returns. The trainer of
today runs on one host, and so asks for the whole of every batch, `Shard()`; streamed data have one
part.

Letters: R trials, K steps of one call, B batch, N rows of a split.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax

from tasks.batch import Batch

Report = Callable[[int, int], None]  # how many rows there are now, and how many there will be


class DataMissingError(Exception):
    """Stored data are not here and cannot be had; the message says what to do, in one line."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Given:
    """Arrays that a program makes its batches of; both None where it needs none.

    Attributes:
      resident: arrays that stay on the device, the same for every trial and every step.
      streamed: arrays of one step of one trial, with the batch axis B in front; the trainer hands
        them over for R trials and K steps at a time, [R, K, B, …].
    """

    resident: Any = None
    streamed: Any = None


@dataclasses.dataclass(frozen=True)
class Shard:
    """The share of every batch that one host reads: the `index`-th of `count` equal pieces."""

    index: int = 0
    count: int = 1

    def slice(self, batch_size: int) -> slice:
        """Rows of a batch that this host reads; raises ValueError if it cannot be divided."""
        if batch_size % self.count:
            raise ValueError(
                f"train.batch_size is {batch_size}, expected a multiple of the "
                f"{self.count} hosts that read it"
            )
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)


class Source:
    """Origin of the examples of one split.

    A subclass defines the batches it is used for, `train_batch` or `eval_batch` (both traced), and,
    where these need arrays, `abstract` with `resident` or `stream`.
    """

    def abstract(self, batch_size: int) -> Given:
        """Shapes (`jax.ShapeDtypeStruct`) of what one step of one trial is given; needs no data."""
        return Given()

    def resident(self) -> Any:
        """The resident arrays, as numpy arrays."""
        return None

    def stream(
        self, keys: jax.Array, batch_size: int, start: int, stop: int, shard: Shard
    ) -> Iterator[Any]:
        """Yields the streamed arrays of steps start … stop − 1, as numpy arrays [R, B / hosts, …].

        The same for the same keys and steps, wherever it starts.

        Args:
          keys: [R], one for each trial: they fix the order of its training examples.
          batch_size: B.
          start: first step.
          stop: step after the last one.
          shard: the share of each batch that is read here.
        """
        raise TypeError(f"{type(self).__name__} must define stream(), as it has streamed arrays")

    def train_batch(
        self, given: Given, key: jax.Array, step: jax.Array, batch_size: int, part: int
    ) -> Batch:
        """Training batch of one trial.

        Args:
          given: the arrays, those of this step and trial alone.
          key: fixes the trial's training examples and their order.
          step: number of batches already drawn from this part.
          batch_size: B.
          part: which part of the split, static.
        """
        raise TypeError(f"{type(self).__name__} must define train_batch()")

    def eval_batch(self, given: Given, step: jax.Array, batch_size: int, part: int) -> Batch:
        """Batch number `step` of a validation or test part; `given` holds resident arrays alone."""
        raise TypeError(f"{type(self).__name__} must define eval_batch()")
