"""Hyena (Poli et al. 2023, arXiv 2302.10866): long implicit filters interleaved with gates.

Letters: B batch, T time, D model width, M longest sequence, N order (the number of long filters).
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, State, Undecayed
from arch.nn import options
from arch.nn.cache import append, convolve_last
from arch.nn.layers import Linear, ShortConv
from arch.registry import register
from pallas_kernels import long_convolution

# The slowest and the fastest channel's window falls to TARGET at these fractions of M.
DECAY_FRACTIONS = (1.5, 0.3)
TARGET = 1e-2
SHIFT = 0.05  # what is left of the window for ever


class ImplicitFilter(nnx.Module):
    """h_t = Window(t) ⊙ FFN(PositionalEncoding(t)) (eq. 7), for `num_filters` filters at once.

    The encoding of t is t/M and the complex exponentials e^{2πi f t/M} of `num_bands` frequencies
    f; the FFN has sine activations, sin(ω·), so that it can draw high frequencies; the window is
    exp(−α_d t) + shift with α spread over channels.

    Args:
      num_filters: N.
      d_model: D, channels of each.
      max_length: M, the longest sequence; filters are functions of t / M, so it is part of what the
        layer is.
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
        """The first `length` taps, [N, D, length] float32."""
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
        rates = (-math.log(TARGET) / fraction for fraction in DECAY_FRACTIONS)
        alpha = jnp.linspace(*rates, self.d_model)
        return (h * (jnp.exp(-alpha * t) + SHIFT)[:, None]).transpose(1, 2, 0)


@register("hyena")
class Hyena(SequenceMixer):
    """z¹ = v, z^{n+1} = xⁿ ⊙ (hⁿ ∗ zⁿ), y = z^{N+1} W (definition 3.1), with v, x¹ … x^N
    projections after a short convolution.

    Every long filter has a skip, h ∗ z + s ⊙ z.

    Args:
      order: N.
      conv_size: width of the short convolution on the projections.
      **filters: options of `ImplicitFilter`.

    State: the inputs of the N long convolutions, [B, M, D] each, and the short one's last inputs.
    """

    uses_fft = True
    paper = "Hyena (Poli et al. 2023)"
    reference = "https://arxiv.org/abs/2302.10866"

    @options.with_those_of(ImplicitFilter)
    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        order: int = 2,
        conv_size: int = 3,
        **filters: Any,
    ):
        options.at_least("order", order, 1)
        options.at_least("conv_size", conv_size, 1)
        self.order = order
        self.into = Linear(d_model, (order + 1) * d_model, rngs=rngs, use_bias=True)
        self.conv = ShortConv((order + 1) * d_model, conv_size, rngs=rngs)
        self.filters = ImplicitFilter(order, d_model, rngs=rngs, **filters)
        self.max_length = self.filters.max_length
        self.skip = Undecayed(jax.random.normal(rngs.params(), (order, d_model)))
        self.out = Linear(d_model, d_model, rngs=rngs, use_bias=True)

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        self.refuse_packed(context)
        z, *gates = jnp.split(self.conv(self.into(x)), self.order + 1, axis=-1)
        filters, skip = self.filters(x.shape[1]), self.skip[...].astype(x.dtype)
        for n, gate in enumerate(gates):
            z = gate * (long_convolution(z, filters[n]) + skip[n] * z)
        return self.out(z)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        options.at_least("the mixer's max_length", self.max_length, max_length)
        return {
            "conv": self.conv.initial_state(batch_size),
            "histories": [
                jnp.zeros((batch_size, max_length, self.skip.shape[-1])) for _ in range(self.order)
            ],
            "length": jnp.zeros((), jnp.int32),
        }

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context)
        new, before = x.shape[1], state["length"]
        tail, projections = self.conv.extend(state["conv"], self.into(x))
        z, *gates = jnp.split(projections, self.order + 1, axis=-1)
        filters = self.filters(state["histories"][0].shape[1])
        skip = self.skip[...].astype(x.dtype)
        histories = []
        for n, gate in enumerate(gates):
            histories.append(append(state["histories"][n], before, z))
            y = convolve_last(histories[-1], filters[n], before + new, new).astype(x.dtype)
            z = gate * (y + skip[n] * z)
        return {"conv": tail, "histories": histories, "length": before + new}, self.out(z)
