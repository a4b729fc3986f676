"""Short depthwise causal convolutions.

Letters: B batch, T time, D width.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Undecayed
from arch.nn import options


class ShortConv(nnx.Module):
    """Depthwise causal convolution: y_t = Σ_j w_j ⊙ x_{t−j} + b, j = 0 … width − 1.

    The sequence is preceded by zeros. The state is the last inputs, [B, width − 1, D].
    """

    def __init__(self, d: int, width: int, *, rngs: nnx.Rngs):
        bound = width**-0.5  # the fan-in of a depthwise filter is its width
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (width, d), minval=-bound, maxval=bound)
        )
        self.bias = Undecayed(jnp.zeros(d))
        self.width = width

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.extend(self.initial_state(x.shape[0], x.dtype), x)[1]

    def initial_state(self, batch_size: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jnp.zeros((batch_size, self.width - 1, self.bias.shape[0]), dtype)

    def extend(self, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        length = x.shape[1]
        padded = jnp.concatenate([state.astype(x.dtype), x], axis=1)
        kernel = self.kernel[...].astype(x.dtype)
        # A sum of shifted products: XLA fuses it into one pass, while its grouped convolutions are
        # slow on CPU.
        y = sum(kernel[j] * padded[:, self.width - 1 - j :][:, :length] for j in range(self.width))
        return padded[:, length:].astype(state.dtype), y + self.bias[...].astype(x.dtype)


def short_convs(widths: Sequence[int], size: int | None, *, rngs: nnx.Rngs) -> nnx.List:
    """Build a convolution of `size` taps for each width, or none at all if size is None."""
    if size is None:
        return nnx.List([])
    options.at_least("conv_size", size, 1)
    return nnx.List(ShortConv(width, size, rngs=rngs) for width in widths)


def convolve_each(
    convs: nnx.List, states: list[jax.Array], inputs: list[jax.Array]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Extend each convolution by its own input [B, T, D]; returns (states, outputs).

    Without convolutions the inputs are returned as they are.
    """
    if not len(convs):
        return [], inputs
    pairs = [conv.extend(*pair) for conv, *pair in zip(convs, states, inputs, strict=True)]
    return [state for state, _ in pairs], [y for _, y in pairs]
