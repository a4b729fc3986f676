"""Persistent memory tokens (Titans, Behrouz et al. 2024, arXiv 2501.00663, section 3.3)."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.nn import options


class PersistentTokens(nnx.Module):
    """N_p learned tokens, [N_p, D], prepended to every sequence."""

    def __init__(self, number: int, d_model: int, *, rngs: nnx.Rngs):
        options.at_least("num_persistent", number, 1)
        # As large as the normalised tokens that come after them.
        self.tokens = nnx.Param(jax.random.normal(rngs.params(), (number, d_model)))

    def __call__(self, batch_size: int) -> jax.Array:
        return jnp.broadcast_to(self.tokens[...], (batch_size, *self.tokens.shape))
