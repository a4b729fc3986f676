"""S4D: diagonal state spaces (Gu et al. 2022, arXiv 2206.11893).

Letters: B batch, T time, D model width, N state size per channel.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, State
from arch.nn.bidirectional_conv import without_padding
from arch.nn.diagonal_siso import DiagonalSSM
from arch.nn.layers import GLU
from arch.registry import register


@register("s4d")
class S4D(SequenceMixer):
    """One diagonal state-space model per channel, then GELU and a gated linear unit.

    The state-space model runs in float32 and complex64 for every dtype of x.

    Args:
      d_state: N, even.
      init: A_n for n < N/2: "lin" −½ + iπn, "inv" −½ + i N/π (N/(2n+1) − 1), "legs" the eigenvalues
        of the normal part of HiPPO-LegS, "real" −(n+1) (section 4).
      discretization: "zoh" or "bilinear" (section 3.1).
      dt_min: lower end of the initial Δ, which are log-uniform.
      dt_max: upper end.
      bidirectional: see both ways, with shared A, B and Δ but one C for each direction.

    State: h [B, D, N/2] complex64.
    """

    uses_fft = True
    paper = "S4D (Gu et al. 2022)"
    reference = "https://arxiv.org/abs/2206.11893"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        d_state: int = 64,
        init: str = "lin",
        discretization: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
    ):
        self.ssm = DiagonalSSM(
            d_model,
            rngs=rngs,
            d_state=d_state,
            init=init,
            discretization=discretization,
            dt_min=dt_min,
            dt_max=dt_max,
            bidirectional=bidirectional,
        )
        self.out = GLU(d_model, d_model, rngs=rngs)

    @property
    def causal(self) -> bool:
        """False if bidirectional."""
        return not self.ssm.bidirectional

    def _block(self, y: jax.Array, dtype: jnp.dtype) -> jax.Array:
        return self.out(jax.nn.gelu(y).astype(dtype))

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        u = x.astype(jnp.float32)
        if self.causal:
            self.refuse_packed(context)
        else:
            u = without_padding(u, context)
        return self._block(self.ssm(u), x.dtype)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        self.require_causal()
        return self.ssm.initial_state(batch_size)

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.require_causal()
        self.refuse_packed(context)
        state, y = self.ssm.extend(state, x.astype(jnp.float32))
        return state, self._block(y, x.dtype)
