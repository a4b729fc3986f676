"""What every task provides: data, supervision, metric, and two anchors.

Letters: B batch, T time, P supervised positions per example, V vocabulary, F features.
"""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of examples.

    Attributes:
      inputs: [B, T] int ids, or [B, T, F] features.
      positions: [B, P] int, where the model is judged.
      targets: [B, P] int, what it should say there.
      weights: [B, P] float, 0 where a position is only filler.
      mask: optional [B, T] bool, False at padding.
    """

    inputs: jax.Array
    positions: jax.Array
    targets: jax.Array
    weights: jax.Array
    mask: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Average:
    """An exact average in pieces: a total and the count behind it; add pieces of any size, then call `value`."""

    total: jax.Array
    count: jax.Array

    def __add__(self, other: "Average") -> "Average":
        return Average(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> jax.Array:
        return self.total / jnp.maximum(self.count, 1)


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of a split in which all examples have one shape; mixtures have several.

    Attributes:
      name: names the slice in metrics, such as "length=64,num_kv_pairs=4".
      length: T.
      num_examples: how many examples the part holds; None is an endless supply.
    """

    name: str
    length: int
    num_examples: int | None


class Task:
    """Base class of every task.

    Class attributes:
      metric: the primary metric, the one by which hyperparameters are chosen; larger is better.
      needs_causal: the task is meaningless for a mixer that sees the future.
      version: part of every trial's configuration; bump it when a change alters what the numbers mean.
    """

    metric: ClassVar[str] = "accuracy"
    needs_causal: ClassVar[bool] = True
    version: ClassVar[int] = 1

    vocab_size: int
    max_length: int

    def parts(self, split: Split) -> tuple[Part, ...]:
        """The parts of a split, in a fixed order."""
        raise TypeError(f"{type(self).__name__} must define parts(split)")

    def example(self, key: jax.Array, split: Split = "train", part: int = 0) -> Batch:
        """One example without its batch axis: a pure, jittable function of the key."""
        raise TypeError(f"{type(self).__name__} must define example(key, split, part)")

    def sample(
        self, key: jax.Array, batch_size: int, split: Split = "train", part: int = 0
    ) -> Batch:
        """A batch of fresh examples of one part, drawn on the device."""
        keys = jax.random.split(jax.random.fold_in(key, SPLITS.index(split)), batch_size)
        return jax.vmap(lambda k: self.example(k, split, part))(keys)

    def metrics(self, logits: jax.Array, batch: Batch) -> dict[str, Average]:
        """Sums and counts over a batch; logits: [B, P, V] at `batch.positions`. Holds at least "loss" and `metric`."""
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        loss = -jnp.take_along_axis(log_probs, batch.targets[..., None], -1)[..., 0]
        hits = jnp.argmax(logits, -1) == batch.targets
        count = jnp.sum(batch.weights)
        return {
            "loss": Average(jnp.sum(loss * batch.weights), count),
            "accuracy": Average(jnp.sum(hits * batch.weights), count),
        }

    def anchors(self) -> dict[str, float]:
        """Scores in `metric` of a trivial predictor (floor) and of the best possible one (ceiling), by name."""
        raise TypeError(f"{type(self).__name__} must define anchors()")
