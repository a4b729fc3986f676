"""Where packed documents begin.

A document is a run of equal segment ids; an id that comes back is a new document.
"""

import jax
import jax.numpy as jnp

from arch.interface import Context


def document_starts(context: Context | None, last_id: jax.Array | None = None) -> jax.Array | None:
    """Marks the first token of every document, [B, T] bool; None if there are no segment ids.

    Args:
      context: holds the segment ids.
      last_id: [B], the id of the token before; None at the start of a sequence, where there is
        nothing to forget.
    """
    if context is None or context.segment_ids is None:
        return None
    ids = context.segment_ids
    before = ids[:, 0] if last_id is None else last_id
    return ids != jnp.concatenate([before[:, None], ids[:, :-1]], axis=1)


def last_document(context: Context | None, last_id: jax.Array) -> jax.Array:
    """The segment id of the last token, [B]: what the next chunk compares its first id with."""
    if context is None or context.segment_ids is None:
        return last_id
    return context.segment_ids[:, -1].astype(last_id.dtype)


def number_documents(
    starts: jax.Array | None, shape: tuple[int, int], last: jax.Array | None = None
) -> jax.Array:
    """Numbers that rise by one where `starts` marks a new document, [B, T] int32.

    Args:
      starts: as `document_starts` gives them; None is one document.
      shape: (B, T).
      last: [B], the number of the token before; None is 0.
    """
    numbers = (
        jnp.zeros(shape, jnp.int32) if last is None else jnp.broadcast_to(last[:, None], shape)
    )
    return numbers if starts is None else numbers + jnp.cumsum(starts, axis=1, dtype=jnp.int32)


def one_document(ids: jax.Array) -> jax.Array:
    """Which rows are one document, [B] bool, padded with segment id 0 behind it or not at all.

    A mixer that sees both ways and cannot keep documents apart makes the others NaN, because ids
    are known only when the program runs.

    ids: [B, T] int.
    """
    starts = document_starts(Context(segment_ids=ids))
    return jnp.all(((ids == ids[:, :1]) & ~starts) | (ids == 0), axis=1)
