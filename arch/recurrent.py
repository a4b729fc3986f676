"""Base class of the recurrent mixers, whose fixed-size state is cleared between documents."""

import jax
import jax.numpy as jnp

from arch.interface import Context, SequenceMixer, State
from arch.nn.documents import document_starts, last_document


class Recurrent(SequenceMixer):
    """A mixer whose parallel form is its recurrence over the whole sequence.

    The operators are parallel over time or chunked, so that one form serves as both. A subclass
    defines `zeros(batch_size)`, the memory before the first token, and `run`.
    """

    packs = True

    def zeros(self, batch_size: int) -> State:
        """Return the empty memory."""
        raise TypeError(f"{type(self).__name__} must define zeros(batch_size)")

    def run(self, memory: State, x: jax.Array, starts: jax.Array | None) -> tuple[State, jax.Array]:
        """(memory, x [B, T, D], starts [B, T] bool or None) -> (memory, y [B, T, D]).

        `starts` marks the first tokens of documents, which see nothing of the tokens before.
        """
        raise TypeError(f"{type(self).__name__} must define run(memory, x, starts)")

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        self.refuse_packed(context)
        return self.run(self.zeros(x.shape[0]), x, document_starts(context))[1]

    def initial_state(self, batch_size: int, max_length: int) -> State:
        return {"memory": self.zeros(batch_size), "last_id": jnp.zeros(batch_size, jnp.int32)}

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context)
        starts = document_starts(context, state["last_id"])
        memory, y = self.run(state["memory"], x, starts)
        return {"memory": memory, "last_id": last_document(context, state["last_id"])}, y


def forget(log_decay: jax.Array, starts: jax.Array | None) -> jax.Array:
    """Return log_decay [B, T, H, ...], with −inf at the `starts` [B, T] of documents."""
    if starts is None:
        return log_decay
    starts = starts.reshape(*starts.shape, *[1] * (log_decay.ndim - 2))
    return jnp.where(starts, -jnp.inf, log_decay)
