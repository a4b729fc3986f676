"""Short depthwise causal convolutions.

Letters: B batch, T time, D width.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Undecayed
from arch.nn import options
from arch.nn.documents import positions_in_document


class ShortConv(nnx.Module):
    """Depthwise causal convolution: y_t = Σ_j w_j ⊙ x_{t−j} + b, j = 0 … width − 1.

    The sequence is preceded by zeros, and so is every document: the taps end at its first token.
    The state is the last inputs, [B, width − 1, D], those of earlier documents zero.
    """

    def __init__(self, d: int, width: int, *, rngs: nnx.Rngs):
        bound = width**-0.5  # the fan-in of a depthwise filter is its width
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (width, d), minval=-bound, maxval=bound)
        )
        self.bias = Undecayed(jnp.zeros(d))
        self.width = width

    def __call__(self, x: jax.Array, starts: jax.Array | None = None) -> jax.Array:
        return self.extend(self.initial_state(x.shape[0], x.dtype), x, starts)[1]

    def initial_state(self, batch_size: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jnp.zeros((batch_size, self.width - 1, self.bias.shape[0]), dtype)

    def extend(
        self, state: jax.Array, x: jax.Array, starts: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """(state, x [B, T, D], starts [B, T] bool or None) -> (state, y [B, T, D]).

        `starts` marks the first tokens of documents.
        """
        length, before = x.shape[1], self.width - 1
        padded = jnp.concatenate([state.astype(x.dtype), x], axis=1)
        taps = [padded[:, before - j :][:, :length] for j in range(self.width)]
        tail = padded[:, length:]
        if starts is not None:
            # How far back each token may look: what the state holds of its document is all there.
            reach = positions_in_document(starts, before)[..., None]
            taps = [jnp.where(j <= reach, tap, 0) for j, tap in enumerate(taps)]
            tail = jnp.where(jnp.arange(before)[::-1, None] <= reach[:, -1:], tail, 0)
        kernel = self.kernel[...].astype(x.dtype)
        # A sum of shifted products: XLA fuses it into one pass, while its grouped convolutions are
        # slow on CPU.
        y = sum(kernel[j] * tap for j, tap in enumerate(taps))
        return tail.astype(state.dtype), y + self.bias[...].astype(x.dtype)


def short_convs(widths: Sequence[int], size: int | None, *, rngs: nnx.Rngs) -> nnx.List:
    """Build a convolution of `size` taps for each width, or none at all if size is None."""
    if size is None:
        return nnx.List([])
    options.at_least("conv_size", size, 1)
    return nnx.List(ShortConv(width, size, rngs=rngs) for width in widths)


def convolve_each(
    convs: nnx.List,
    states: list[jax.Array],
    inputs: list[jax.Array],
    starts: jax.Array | None,
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Extend each convolution by its own input [B, T, D]; returns (states, outputs).

    Without convolutions the inputs are returned as they are. `starts` [B, T] bool marks the first
    tokens of documents.
    """
    if not len(convs):
        return [], inputs
    pairs = [conv.extend(*pair, starts) for conv, *pair in zip(convs, states, inputs, strict=True)]
    return [state for state, _ in pairs], [y for _, y in pairs]
