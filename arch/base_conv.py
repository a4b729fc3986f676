"""BaseConv, the minimal gated convolution (Zoology, Arora et al. 2023, arXiv 2312.04927).

Letters: B batch, T time, D model width, M longest sequence.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, State, Undecayed
from arch.nn import options
from arch.nn.cache import append, convolve_last
from arch.nn.documents import document_starts
from arch.nn.layers import INIT_SCALE, Linear
from arch.nn.short_conv import ShortConv
from arch.registry import register
from pallas_kernels import long_convolution


class _LongConv(nnx.Module):
    """h ∗ x + b with one tap per lag up to M. The state is all past inputs, [B, M, D]."""

    def __init__(self, d: int, max_length: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(INIT_SCALE * jax.random.normal(rngs.params(), (d, max_length)))
        self.bias = Undecayed(jnp.zeros(d))

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[1] > self.kernel.shape[1]:
            raise ValueError(
                f"the sequence has {x.shape[1]} tokens, expected at most max_length "
                f"{self.kernel.shape[1]}: build with more"
            )
        return long_convolution(x, self.kernel[...]) + self.bias[...].astype(x.dtype)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        options.at_least("the mixer's max_length", self.kernel.shape[1], max_length)
        return {
            "history": jnp.zeros((batch_size, max_length, self.bias.shape[0])),
            "length": jnp.zeros((), jnp.int32),
        }

    def extend(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        history = append(state["history"], state["length"], x)
        length = state["length"] + x.shape[1]
        kernel = self.kernel[...][:, : history.shape[1]]
        y = convolve_last(history, kernel, length, x.shape[1]).astype(x.dtype)
        return {"history": history, "length": length}, y + self.bias[...].astype(x.dtype)


@register("base_conv")
class BaseConv(SequenceMixer):
    """y = (x W + b₁) ⊙ (h ∗ x + b₂) (eq. 2), h a depthwise causal filter.

    Args:
      width: taps of h; None is one tap for every lag up to max_length.
      max_length: the longest sequence, for a filter with width None.

    Packed documents are kept apart by `__call__` and a filter of `width` taps. `extend` refuses
    segment ids: the state holds none.

    State: the last width − 1 inputs; all past inputs, [B, M, D], if width is None.
    """

    paper = "Zoology (Arora et al. 2023)"
    reference = "https://arxiv.org/abs/2312.04927"

    def __init__(
        self, d_model: int, *, rngs: nnx.Rngs, width: int | None = 3, max_length: int = 1024
    ):
        self.gate = Linear(d_model, d_model, rngs=rngs, use_bias=True)
        if width is None:
            options.at_least("max_length", max_length, 1)
            self.conv = _LongConv(d_model, max_length, rngs=rngs)
        else:
            options.at_least("width", width, 1)
            self.conv = ShortConv(d_model, width, rngs=rngs)

    @property
    def uses_fft(self) -> bool:
        """True for the long filter only."""
        return isinstance(self.conv, _LongConv)

    @property
    def packs(self) -> bool:
        """True for the short filter only: a transform mixes all documents of a row."""
        return isinstance(self.conv, ShortConv)

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        self.refuse_packed(context)
        starts = document_starts(context)
        return self.gate(x) * (self.conv(x) if starts is None else self.conv(x, starts))

    def initial_state(self, batch_size: int, max_length: int) -> State:
        if isinstance(self.conv, _LongConv):
            return self.conv.initial_state(batch_size, max_length)
        return self.conv.initial_state(batch_size)

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context, in_parts=True)
        state, y = self.conv.extend(state, x)
        return state, self.gate(x) * y
