"""Named shapes and masks of softmax attention."""

import jax
import jax.numpy as jnp

from pallas_kernels.attention.masks import BlockLocal, Causal, Fixed, Strided, Window
from pallas_kernels.example import Arrays, Example, qkv


def _arrays(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, H: int, K: int) -> Arrays:
    arrays = qkv(keys, dtype, B, T, H, K, K)
    return arrays | {"k": arrays["k"] * K**0.5}


_HEADS = {"B": 1, "T": 4096, "H": 4, "K": 64}

EXAMPLES = (
    Example(
        "attention",
        "small",
        _arrays,
        {"B": 4, "T": 256, "H": 4, "K": 32},
        lambda length: {"mask": Causal()},
    ),
    *(
        Example("attention", name, _arrays, _HEADS, rule, grows=True)
        for name, rule in {
            "typical": lambda length: {"mask": Causal()},
            "window": lambda length: {"mask": Window(256)},
            "block_local": lambda length: {"mask": BlockLocal(256)},
            # Sparse Transformer: the stride is near √T.
            "strided": lambda length: {"mask": Strided(round(length**0.5))},
            "fixed": lambda length: {"mask": Fixed(round(length**0.5), 8)},
        }.items()
    ),
)
