"""What mixers with a matrix state share: one recurrence serves both of their forms.

Their operators are chunked, so that the parallel form is the recurrence over the whole sequence
from the initial state.
"""

import jax
import jax.numpy as jnp

from arch.documents import document_starts, last_document
from arch.interface import Context, SequenceMixer, State


def forget(log_decay: jax.Array, starts: jax.Array | None) -> jax.Array:
    """log_decay [B, T, H, ...], and −inf where `starts` [B, T] marks a new document."""
    if starts is None:
        return log_decay
    starts = starts.reshape(*starts.shape, *[1] * (log_decay.ndim - 2))
    return jnp.where(starts, -jnp.inf, log_decay)


class MatrixStateMixer(SequenceMixer):
    """A mixer that is defined by `_empty` and `_run`.

    The state is a dict: what `_empty` gives, and the id of the last token's document.
    """

    def _empty(self, batch_size: int) -> dict[str, State]:
        """The state before the first token."""
        raise TypeError(f"{type(self).__name__} must define _empty(batch_size)")

    def _run(
        self, state: State, x: jax.Array, starts: jax.Array | None
    ) -> tuple[dict[str, State], jax.Array]:
        """The recurrence over x [B, T, D]; `starts` [B, T] marks where documents begin.

        Returns what `_empty` gives, after the last token, and y [B, T, D].
        """
        raise TypeError(f"{type(self).__name__} must define _run(state, x, starts)")

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        self.refuse_packed(context)
        return self._run(self._empty(x.shape[0]), x, document_starts(context))[1]

    def initial_state(self, batch_size: int, max_length: int) -> State:
        return self._empty(batch_size) | {"last_id": jnp.zeros(batch_size, jnp.int32)}

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context)
        last_id = state["last_id"]
        after, y = self._run(state, x, document_starts(context, last_id))
        return after | {"last_id": last_document(context, last_id)}, y
