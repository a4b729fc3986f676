"""Hyena (Poli et al. 2023, arXiv 2302.10866): long implicit filters interleaved with gates.

Letters: B batch, T time, D model width, M longest sequence, N order (the number of long filters).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, State, Undecayed
from arch.nn import options
from arch.nn.cache import append, convolve_last
from arch.nn.implicit_filter import ImplicitFilter
from arch.nn.layers import Linear
from arch.nn.short_conv import ShortConv
from arch.registry import register
from pallas_kernels import long_convolution


@register("hyena")
class Hyena(SequenceMixer):
    """z¹ = v, z^{n+1} = xⁿ ⊙ (hⁿ ∗ zⁿ), y = z^{N+1} W (definition 3.1), with v, x¹ … x^N
    projections after a short convolution.

    Every long filter has a skip connection, h ∗ z + s ⊙ z.

    Args:
      order: N.
      conv_size: width of the short convolution on the projections.
      **filters: options of `ImplicitFilter`.

    State: the inputs of the N long convolutions, [B, M, D] each, and the last inputs of the short
    one.
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
