"""Residual block around a mixer.

Letters: B batch, T time, D width.
"""

import dataclasses

import jax
from flax import nnx

from arch.interface import Context, SequenceMixer, State
from arch.nn.channel_mixers import CHANNEL_MIXERS
from arch.nn.layers import LayerNorm, RMSNorm, dropout

NORMS = {"layer": LayerNorm, "rms": RMSNorm}


class Block(nnx.Module):
    """x + mixer(norm(x)), then x + channel_mixer(norm(x)) (pre-norm).

    The second part is left out if the channel mixer is "none" or the mixer has its own. Dropout
    acts on both terms before they are added to x, as in GPT-2.
    """

    def __init__(
        self,
        mixer: SequenceMixer,
        d_model: int,
        norm: str,
        channel_mixer: str,
        dropout_rate: float = 0.0,
        *,
        rngs: nnx.Rngs,
    ):
        self.mixer = mixer
        self.mixer_norm = NORMS[norm](d_model)
        adds = channel_mixer != "none" and not mixer.channel_mixing
        self.channel_mixer = CHANNEL_MIXERS[channel_mixer](d_model, rngs=rngs) if adds else None
        self.channel_norm = NORMS[norm](d_model) if adds else None
        self.dropout_rate = dropout_rate

    def _drop(self, y: jax.Array, rng: jax.Array | None, place: int) -> jax.Array:
        if rng is None or self.dropout_rate == 0:
            return y
        return dropout(y, self.dropout_rate, jax.random.fold_in(rng, place))

    def _add(self, x: jax.Array, y: jax.Array, rng: jax.Array | None) -> jax.Array:
        """Add the mixer's output y to the residual stream x, then the channel mixer's."""
        x = x + self._drop(y, rng, 0)
        if self.channel_mixer is None:
            return x
        return x + self._drop(self.channel_mixer(self.channel_norm(x)), rng, 1)

    def __call__(
        self,
        x: jax.Array,
        context: Context | None = None,
        *,
        rng: jax.Array | None = None,
        padding: jax.Array | None = None,
    ) -> jax.Array:
        """Apply the block to a whole sequence.

        Args:
          x: [B, T, D].
          context: passed to the mixer.
          rng: key of this layer's dropout; None is no dropout.
          padding: segment ids [B, T] int, 0 at the padding at the end of each row. Only a mixer
            that sees the future gets them; a causal one never sees the padding.

        Returns:
          [B, T, D].
        """
        if padding is not None and not self.mixer.causal:
            context = dataclasses.replace(context or Context(), segment_ids=padding, padded=True)
        return self._add(x, self.mixer(self.mixer_norm(x), context), rng)

    def extend(
        self,
        state: State,
        x: jax.Array,
        context: Context | None = None,
        *,
        rng: jax.Array | None = None,
    ) -> tuple[State, jax.Array]:
        """Apply the recurrent form, like `SequenceMixer.extend`."""
        state, y = self.mixer.extend(state, self.mixer_norm(x), context)
        return state, self._add(x, y, rng)
