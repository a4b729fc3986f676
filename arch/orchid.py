"""Orchid: global convolution with an input-dependent kernel (Karami & Ghodsi 2024, arXiv
2402.18508).

Letters: B batch, T time, D model width, M longest sequence, F = ⌊T/2⌋ + 1 frequencies.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, Undecayed
from arch.nn import options
from arch.nn.implicit_filter import ImplicitFilter
from arch.nn.layers import LayerNorm, Linear
from arch.registry import register
from pallas_kernels import long_convolution


class _CircularConv(nnx.Module):
    """Depthwise circular convolution: y_t = Σ_j w_j ⊙ x_{(t + c − j) mod T} + b, with c the
    middle of the taps.
    """

    def __init__(self, d: int, width: int, *, rngs: nnx.Rngs):
        bound = width**-0.5
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (width, d), minval=-bound, maxval=bound)
        )
        self.bias = Undecayed(jnp.zeros(d))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(x.dtype)
        middle = (len(kernel) - 1) // 2
        y = sum(w * jnp.roll(x, j - middle, axis=1) for j, w in enumerate(kernel))
        return y + self.bias[...].astype(x.dtype)


class _FrequencyConv(nnx.Module):
    """Convolution along frequency, from I real inputs per channel to one complex output.

    It is zero-padded at the lowest and the highest frequency.
    """

    def __init__(self, d: int, parts: int, width: int, *, rngs: nnx.Rngs):
        bound = (width * parts) ** -0.5
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (width, parts, 2, d), minval=-bound, maxval=bound)
        )
        self.bias = Undecayed(jnp.zeros((2, d)))
        self.norm = LayerNorm(2 * d)

    def __call__(self, *parts: jax.Array) -> jax.Array:
        """Parts: I of [B, F, D] float32. Returns [B, F, D] complex64."""
        x = jnp.stack(parts, axis=2)[:, :, :, None]  # [B, F, I, 1, D]
        width, length = self.kernel.shape[0], x.shape[1]
        before = (width - 1) // 2
        padded = jnp.pad(x, ((0, 0), (before, width - 1 - before), *[(0, 0)] * 3))
        y = sum((padded[:, j : j + length] * w).sum(2) for j, w in enumerate(self.kernel[...]))
        y = self.norm((y + self.bias[...]).reshape(*y.shape[:2], -1))
        return jax.lax.complex(*jnp.split(y, 2, axis=-1))


class _ConditioningNetwork(nnx.Module):
    """h_θ(x), a kernel that is invariant to shifts of x (section 3.1), in float32.

    Type I drops the phase, the only effect of a shift: DFT(h) = Conv(|DFT(Conv(x))|).
    Type II is the cross-correlation of two shift-equivariant maps,
    DFT(h) = Conv(DFT*(k(x)) ⊙ DFT(q(x))), with k and q convolutions. The inner convolutions run
    along time, the outer along frequency; each is followed by LayerNorm, as in the authors' code.
    """

    def __init__(self, d: int, kind: str, width: int, *, rngs: nnx.Rngs):
        maps = 1 if kind == "magnitude" else 2
        self.convs = nnx.List(_CircularConv(d, width, rngs=rngs) for _ in range(maps))
        self.norms = nnx.List(LayerNorm(d) for _ in range(maps))
        self.frequency_conv = _FrequencyConv(d, maps, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: [B, T, D]. Returns [B, D, T] float32."""
        x = x.astype(jnp.float32)
        spectra = [
            jnp.fft.rfft(norm(conv(x)), axis=1, norm="ortho")
            for conv, norm in zip(self.convs, self.norms, strict=True)
        ]
        if len(spectra) == 1:
            h = self.frequency_conv(jnp.abs(spectra[0]))
        else:
            product = jnp.conj(spectra[0]) * spectra[1]
            h = self.frequency_conv(product.real, product.imag)
        return jnp.fft.irfft(jnp.swapaxes(h, 1, 2), n=x.shape[1])


@register("orchid")
class Orchid(SequenceMixer):
    """y = (x₀ ⊙ (h ∗ z)) W_O, z = x₁ ⊙ v, h = h₀ + h_θ(v): a circular convolution over the T
    tokens, whose kernel is conditioned on the whole input and which is therefore not causal.

    x₀, x₁ and v are projections after a short convolution (for h_θ, v before it). h₀ is an implicit
    filter as in `hyena`, and the convolution has a skip connection, h ∗ z + s ⊙ z. The short
    convolutions are circular as well, so that the layer is exactly shift-equivariant; in the
    paper's code they end at the border, and equivariance holds up to that. The second, fixed long
    convolution of the code is left out.

    Args:
      conditioning: "magnitude" (type I) or "correlation" (type II).
      conv_size: width of the short convolutions.
      **filter: options of `ImplicitFilter`, for h₀.
    """

    causal = False
    uses_fft = True
    paper = "Orchid (Karami & Ghodsi 2024)"
    reference = "https://arxiv.org/abs/2402.18508"

    @options.with_those_of(ImplicitFilter)
    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        conditioning: str = "magnitude",
        conv_size: int = 3,
        **filter: Any,
    ):
        options.one_of("conditioning", conditioning, ("magnitude", "correlation"))
        options.at_least("conv_size", conv_size, 1)
        self.into = Linear(d_model, 3 * d_model, rngs=rngs, use_bias=True)
        self.conv = _CircularConv(3 * d_model, conv_size, rngs=rngs)
        self.fixed = ImplicitFilter(1, d_model, rngs=rngs, **filter)
        self.conditioned = _ConditioningNetwork(d_model, conditioning, conv_size, rngs=rngs)
        self.skip = Undecayed(jax.random.normal(rngs.params(), (d_model,)))
        self.out = Linear(d_model, d_model, rngs=rngs, use_bias=True)

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        self.refuse_packed(context)
        projections = self.into(x)
        x_0, x_1, v = jnp.split(self.conv(projections), 3, axis=-1)
        h = self.fixed(x.shape[1])[0] + self.conditioned(jnp.split(projections, 3, axis=-1)[2])
        z = x_1 * v
        z = long_convolution(z, h, causal=False) + self.skip[...].astype(x.dtype) * z
        return self.out(x_0 * z)
