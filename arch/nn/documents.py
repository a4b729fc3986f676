"""Boundaries of packed documents.

A document is a run of equal segment ids; an id that comes back later is a new document.
"""

import jax
import jax.numpy as jnp

from arch.interface import Context


def document_starts(context: Context | None, last_id: jax.Array | None = None) -> jax.Array | None:
    """Mark the first token of every document, [B, T] bool; None if there are no segment ids.

    Args:
      context: holds the segment ids.
      last_id: [B], the id of the previous token; None at the start of a sequence, which marks
        nothing.
    """
    if context is None or context.segment_ids is None:
        return None
    ids = context.segment_ids
    before = ids[:, 0] if last_id is None else last_id
    return ids != jnp.concatenate([before[:, None], ids[:, :-1]], axis=1)


def positions_in_document(starts: jax.Array, before: int = 0) -> jax.Array:
    """Number the tokens of every document from 0, [B, T] int32.

    Args:
      starts: from `document_starts`.
      before: number of the first token, unless it starts a document.
    """
    t = jnp.arange(starts.shape[1], dtype=jnp.int32)
    return t - jax.lax.cummax(jnp.where(starts, t, -before), axis=1)


def last_document(context: Context | None, last_id: jax.Array) -> jax.Array:
    """Segment id of the last token, [B], for `document_starts` of the next chunk."""
    if context is None or context.segment_ids is None:
        return last_id
    return context.segment_ids[:, -1].astype(last_id.dtype)


def number_documents(
    starts: jax.Array | None, shape: tuple[int, int], last: jax.Array | None = None
) -> jax.Array:
    """Number the documents from 0, [B, T] int32: plus one wherever `starts` is set.

    Args:
      starts: from `document_starts`; None is one document.
      shape: (B, T).
      last: [B], the number of the previous token; None is 0.
    """
    numbers = (
        jnp.zeros(shape, jnp.int32) if last is None else jnp.broadcast_to(last[:, None], shape)
    )
    return numbers if starts is None else numbers + jnp.cumsum(starts, axis=1, dtype=jnp.int32)


def one_document(ids: jax.Array) -> jax.Array:
    """True for rows of one document, followed by padding (segment id 0) or nothing; [B] bool.

    A bidirectional mixer that cannot keep documents apart turns all other rows into NaN, because
    ids are known only when the program runs.

    ids: [B, T] int.
    """
    starts = document_starts(Context(segment_ids=ids))
    return jnp.all(((ids == ids[:, :1]) & ~starts) | (ids == 0), axis=1)
