"""Named shapes of gated linear attention."""

import jax
import jax.numpy as jnp

from pallas_kernels.example import Arrays, matrix_state_examples, qkv


def _arrays(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, H: int, K: int, V: int) -> Arrays:
    return {
        **qkv(keys, dtype, B, T, H, K, V),
        "log_decay": jax.nn.log_sigmoid(3 + jax.random.normal(keys[3], (B, T, H, K))),
        "initial_state": jax.random.normal(keys[4], (B, H, K, V)),
    }


EXAMPLES = matrix_state_examples("gated_linear_attention", _arrays)
