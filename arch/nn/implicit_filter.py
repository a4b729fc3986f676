"""Long convolution filters given by a network (Hyena, Poli et al. 2023, arXiv 2302.10866).

Letters: D model width, M longest sequence, N number of filters.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from arch.nn import options
from arch.nn.layers import Linear

# The windows of the slowest and the fastest channel fall to _TARGET at these fractions of M.
_DECAY_FRACTIONS = (1.5, 0.3)
_TARGET = 1e-2
_SHIFT = 0.05  # the lower bound of the window


class ImplicitFilter(nnx.Module):
    """h_t = Window(t) ⊙ FFN(PositionalEncoding(t)) (eq. 7), for `num_filters` filters at once.

    The encoding of t is t/M with the complex exponentials e^{2πi f t/M} of `num_bands` frequencies
    f. The FFN has sine activations sin(ω·), so that it can represent high frequencies. The window
    is exp(−α_d t) + shift, with α_d spaced evenly over the channels.

    Args:
      num_filters: N.
      d_model: D, channels of each.
      max_length: M, the longest sequence; filters are functions of t / M, so it changes the model.
      num_bands: frequencies of the positional encoding.
      filter_width: hidden width of the FFN.
      filter_depth: its number of linear maps.
      sine_frequency: ω of its activations.
    """

    def __init__(
        self,
        num_filters: int,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        max_length: int = 1024,
        num_bands: int = 16,
        filter_width: int = 64,
        filter_depth: int = 4,
        sine_frequency: float = 1.0,
    ):
        for name, value, low in (
            ("max_length", max_length, 1),
            ("num_bands", num_bands, 1),
            ("filter_width", filter_width, 1),
            ("filter_depth", filter_depth, 2),
        ):
            options.at_least(name, value, low)
        hidden = [filter_width] * (filter_depth - 1)
        widths = [2 * num_bands + 1, *hidden, num_filters * d_model]
        self.layers = nnx.List(
            Linear(a, b, rngs=rngs, use_bias=True) for a, b in itertools.pairwise(widths)
        )
        self.num_filters, self.d_model, self.max_length = num_filters, d_model, max_length
        self.num_bands, self.sine_frequency = num_bands, sine_frequency

    def __call__(self, length: int) -> jax.Array:
        """Return the first `length` taps, [N, D, length] float32."""
        if length > self.max_length:
            raise ValueError(
                f"the sequence has {length} tokens, expected at most max_length "
                f"{self.max_length}: build with more"
            )
        t = jnp.arange(length)[:, None] / self.max_length
        angle = 2 * math.pi * t * jnp.linspace(1e-4, self.num_bands - 1, self.num_bands)
        h = jnp.concatenate([t, jnp.cos(angle), -jnp.sin(angle)], axis=-1)
        for layer in self.layers[:-1]:
            h = jnp.sin(self.sine_frequency * layer(h))
        h = self.layers[-1](h).reshape(length, self.num_filters, self.d_model)
        rates = (-math.log(_TARGET) / fraction for fraction in _DECAY_FRACTIONS)
        alpha = jnp.linspace(*rates, self.d_model)
        return (h * (jnp.exp(-alpha * t) + _SHIFT)[:, None]).transpose(1, 2, 0)
