"""Bidirectional encoder made of a causal mixer, for classification.

Letters: B batch, T time, D model width.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch import registry
from arch.interface import Context, SequenceMixer
from arch.nn.documents import document_starts, one_document
from arch.nn.short_conv import ShortConv
from arch.registry import register

_DEFAULT = "gla"


def reversal(starts: jax.Array) -> jax.Array:
    """Permutation that reverses every document in place.

    starts: [B, T] bool, the first tokens of documents. Returns [B, T] int.
    """
    t = jnp.arange(starts.shape[1])
    ends = jnp.pad(starts[:, 1:], ((0, 0), (0, 1)), constant_values=True)
    first = jax.lax.cummax(jnp.where(starts, t, 0), axis=1)
    last = jax.lax.cummin(jnp.where(ends, t, t[-1]), axis=1, reverse=True)
    return first + last - t


@register("bidirectional")
class Bidirectional(SequenceMixer):
    """y = F(x) + R G(R x): F and G are the same mixer with separate parameters, R reverses time.

    The sum follows S5 (arXiv 2208.04933) and the authors' code for S4. There the two directions
    share all parameters but C and are added before the nonlinearity (`s4` and `s4d` with
    `bidirectional=True`); here they share nothing, because that works for every mixer.

    R reverses each document in place, so that later documents and padding have no influence. With a
    mixer that cannot keep documents apart, a row must be one document, followed by padding (segment
    id 0) or nothing; other rows become NaN, because ids are known only when the program runs.

    Args:
      mixer: name or import path of a causal mixer.
      mixer_options: its options.
      max_length: the longest sequence in tokens, passed on.
      num_layers: depth of the model, passed on.
    """

    causal = False
    paper = "S5 (Smith et al. 2022)"
    reference = "https://arxiv.org/abs/2208.04933"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        mixer: str = _DEFAULT,
        mixer_options: Mapping[str, Any] | None = None,
        max_length: int | None = None,
        num_layers: int | None = None,
    ):
        lengths = {"max_length": max_length, "num_layers": num_layers}
        own = lengths | dict(mixer_options or {})
        self.forward, self.backward = (
            registry.build(mixer, d_model, rngs=rngs, **own) for _ in range(2)
        )
        if not self.forward.causal:
            raise ValueError(
                f"mixer is {mixer!r}, which sees both ways already, expected a causal one"
            )

    @classmethod
    def components(cls, options: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the mixer of both directions."""
        return [(options.get("mixer", _DEFAULT), options.get("mixer_options") or {})]

    @property
    def packs(self) -> bool:
        """As for the mixer."""
        return self.forward.packs

    @property
    def _has_taps(self) -> bool:
        return any(isinstance(m, ShortConv) for _, m in nnx.iter_modules(self.forward))

    @property
    def needs_tokens(self) -> bool:
        """As for the mixer."""
        return self.forward.needs_tokens

    @property
    def channel_mixing(self) -> bool:
        """As for the mixer."""
        return self.forward.channel_mixing

    @property
    def uses_fft(self) -> bool:
        """As for the mixer."""
        return self.forward.uses_fft

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        context = Context() if context is None else context
        ids, starts = context.segment_ids, document_starts(context)
        if starts is None:
            partner = jnp.broadcast_to(jnp.arange(x.shape[1])[::-1], x.shape[:2])
        else:
            partner = reversal(starts.at[:, 0].set(True))

        def reverse(a: jax.Array | None) -> jax.Array | None:
            if a is None:
                return None
            return jnp.take_along_axis(a, partner.reshape(*partner.shape, *[1] * (a.ndim - 2)), 1)

        # What is causal never sees the padding behind a document. The recurrences get its ids all
        # the same, with which results were recorded; taps are not cut off for nothing.
        packs = self.packs and not (context.padded and self._has_taps)
        ahead = dataclasses.replace(context, segment_ids=ids if packs else None)
        behind = dataclasses.replace(
            ahead,
            tokens=reverse(context.tokens),
            rng=None if context.rng is None else jax.random.fold_in(context.rng, 1),
        )
        y = self.forward(x, ahead) + reverse(self.backward(reverse(x), behind))
        if starts is None or packs:
            return y
        return jnp.where(one_document(ids)[:, None, None], y, jnp.nan)
