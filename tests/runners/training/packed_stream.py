"""A fourth source of data for the tests: packed documents, streamed and sharded by host.

Nothing in Seqbench knows of it; a study names it by its import path.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import tasks
from tasks.metrics import LOSS

END = 0  # of a document


class PackedStream(tasks.Task):
    """Next token of documents that count up from a random token, packed into rows of one length."""

    metric = LOSS
    packs = True

    def __init__(self, *, vocab_size: int = 16, length: int = 12):
        self.vocab_size, self.max_length = vocab_size, length

    def parts(self, split):
        return (tasks.Part("", self.max_length, None if split == "train" else 20),)

    def reference_scores(self):
        return {"uniform": float(np.log(self.vocab_size))}

    def source(self, split, resident_bytes=None):
        return Packed(self) if split == "train" else Windows(self, split)

    def row(self, *seed):
        """length + 1 tokens of a stream of documents."""
        rng, tokens = np.random.default_rng(seed), []
        while len(tokens) <= self.max_length:
            first, count = rng.integers(1, self.vocab_size), rng.integers(2, 8)
            tokens += [1 + (first + i) % (self.vocab_size - 1) for i in range(count)] + [END]
        return np.array(tokens[: self.max_length + 1], np.int32)

    def rows_to_batch(self, tokens):
        """tokens [B, T + 1]; the first token of a document is not asked for."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        positions = jnp.broadcast_to(jnp.arange(self.max_length), inputs.shape)
        is_end = inputs == END
        segment_ids = 1 + jnp.cumsum(is_end, 1) - is_end  # a document ends with its END
        weights = 1.0 - is_end
        return tasks.Batch(inputs, positions, targets, weights, segment_ids=segment_ids)


@dataclasses.dataclass(frozen=True)
class Packed(tasks.Source):
    task: PackedStream

    def abstract(self, batch_size):
        shape = (batch_size, self.task.max_length + 1)
        return tasks.Given(streamed=jax.ShapeDtypeStruct(shape, jnp.int32))

    def stream(self, keys, batch_size, start, stop, shard):
        own = range(batch_size)[shard.slice(batch_size)]
        seeds = np.asarray(jax.random.key_data(keys))
        for step in range(start, stop):
            yield np.stack([[self.task.row(*seed, step, b) for b in own] for seed in seeds])

    def train_batch(self, given, key, step, batch_size, part):
        return self.task.rows_to_batch(given.streamed)


@dataclasses.dataclass(frozen=True)
class Windows(tasks.Source):
    task: PackedStream
    split: str

    def abstract(self, batch_size):
        shape = (20, self.task.max_length + 1)
        return tasks.Given(resident=jax.ShapeDtypeStruct(shape, jnp.int32))

    def resident(self):
        return np.stack([self.task.row(tasks.SPLITS.index(self.split), i) for i in range(20)])

    def eval_batch(self, given, step, batch_size, part):
        index = step * batch_size + jnp.arange(batch_size)
        batch = self.task.rows_to_batch(given.resident[jnp.minimum(index, 19)])
        return dataclasses.replace(batch, weights=batch.weights * (index < 20)[:, None])
