"""Named inputs of every operator: what tests lower, benchmarks time and kernels are tuned for.

Values are drawn where the models put them: decays near one, keys of unit length on average, step
sizes between 1e-3 and 1e-1.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.attention.masks import BlockLocal, Causal, Fixed, Strided, Window

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Example:
    """Inputs of one operator at one shape.

    Attributes:
      operator: name of the public function.
      name: of the shape.
      make: draws the arrays from keys, a dtype and the sizes.
      sizes: letter -> size, as the operator's docstring has them; T is the length.
      rule: length -> further keyword arguments that are no arrays.
      large: a shape for accelerators, which takes a laptop's cores minutes.
    """

    operator: str
    name: str
    make: Callable[..., Arrays]
    sizes: Mapping[str, int]
    rule: Callable[[int], dict[str, Any]] = lambda length: {}
    large: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments that are no arrays."""
        return self.rule(self.sizes["T"])

    def arrays(self, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> Arrays:
        """The operator's arrays by argument name; parameters and states stay in float32.

        Args:
          key: a `jax.random.key`.
          dtype: of what comes from activations.
        """
        return self.make(jax.random.split(key, 8), dtype, **self.sizes)

    def with_length(self, length: int) -> "Example":
        """The same at another length T."""
        return dataclasses.replace(self, sizes={**self.sizes, "T": length})


def _linear_scan(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, D: int) -> Arrays:
    return {
        "a": jax.nn.sigmoid(3 + jax.random.normal(keys[0], (B, T, D))).astype(dtype),
        "x": jax.random.normal(keys[1], (B, T, D)).astype(dtype),
        "h0": jax.random.normal(keys[2], (B, D)),
    }


def _complex_linear_scan(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, D: int) -> Arrays:
    del dtype  # complex numbers have one width
    radius, angle = jax.random.uniform(keys[0], (2, B, T, D))
    return {
        "a": (0.9 + 0.1 * radius) * jnp.exp(2j * jnp.pi * angle),
        "x": jax.random.normal(keys[1], (B, T, D), jnp.complex64),
        "h0": jax.random.normal(keys[2], (B, D), jnp.complex64),
    }


def _selective_scan(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, D: int, N: int) -> Arrays:
    return {
        "u": jax.random.normal(keys[0], (B, T, D)).astype(dtype),
        "delta": jnp.exp(
            jax.random.uniform(keys[1], (B, T, D), minval=jnp.log(1e-3), maxval=jnp.log(1e-1))
        ).astype(dtype),
        "A": -jnp.broadcast_to(jnp.arange(1.0, N + 1), (D, N)),
        "B": jax.random.normal(keys[2], (B, T, N)).astype(dtype),
        "C": jax.random.normal(keys[3], (B, T, N)).astype(dtype),
        "D": jnp.ones(D),
        "h0": jax.random.normal(keys[4], (B, D, N)),
    }


def _qkv(keys: jax.Array, dtype: jnp.dtype, B: int, T: int, H: int, K: int, V: int) -> Arrays:
    return {
        "q": jax.random.normal(keys[0], (B, T, H, K)).astype(dtype),
        "k": (jax.random.normal(keys[1], (B, T, H, K)) * K**-0.5).astype(dtype),
        "v": jax.random.normal(keys[2], (B, T, H, V)).astype(dtype),
    }


def _gated_linear_attention(
    keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, H: int, K: int, V: int
) -> Arrays:
    return {
        **_qkv(keys, dtype, B, T, H, K, V),
        "log_decay": jax.nn.log_sigmoid(3 + jax.random.normal(keys[3], (B, T, H, K))),
        "initial_state": jax.random.normal(keys[4], (B, H, K, V)),
    }


def _gated_delta_rule(
    keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, H: int, K: int, V: int
) -> Arrays:
    return {
        **_qkv(keys, dtype, B, T, H, K, V),
        "beta": jax.nn.sigmoid(jax.random.normal(keys[3], (B, T, H))).astype(dtype),
        "log_decay": jax.nn.log_sigmoid(3 + jax.random.normal(keys[4], (B, T, H))),
        "initial_state": jax.random.normal(keys[5], (B, H, K, V)),
    }


def _long_convolution(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, D: int) -> Arrays:
    return {
        "u": jax.random.normal(keys[0], (B, T, D)).astype(dtype),
        "kernel": jax.random.normal(keys[1], (D, T)) * T**-0.5,
    }


def _attention(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, H: int, K: int) -> Arrays:
    arrays = _qkv(keys, dtype, B, T, H, K, K)
    return arrays | {"k": arrays["k"] * K**0.5}


_HEADS = {"B": 1, "T": 4096, "H": 4, "K": 64}

EXAMPLES = (
    Example("linear_scan", "small", _linear_scan, {"B": 4, "T": 1024, "D": 512}),
    Example("linear_scan", "typical", _linear_scan, {"B": 4, "T": 8192, "D": 512}),
    Example("linear_scan", "long", _linear_scan, {"B": 2, "T": 16384, "D": 64}),
    Example("linear_scan", "wide", _linear_scan, {"B": 32, "T": 64, "D": 1024}),
    Example("linear_scan", "complex", _complex_linear_scan, {"B": 4, "T": 2048, "D": 256}),
    Example("linear_scan", "large", _linear_scan, {"B": 8, "T": 4096, "D": 4096}, large=True),
    Example("selective_scan", "small", _selective_scan, {"B": 4, "T": 256, "D": 128, "N": 16}),
    Example("selective_scan", "typical", _selective_scan, {"B": 4, "T": 4096, "D": 512, "N": 16}),
    Example("selective_scan", "long", _selective_scan, {"B": 1, "T": 16384, "D": 256, "N": 16}),
    Example(
        "selective_scan",
        "large",
        _selective_scan,
        {"B": 8, "T": 4096, "D": 2048, "N": 16},
        large=True,
    ),
    *(
        Example(operator, name, make, sizes, large=name.startswith("large"))
        for operator, make in (
            ("gated_linear_attention", _gated_linear_attention),
            ("gated_delta_rule", _gated_delta_rule),
        )
        for name, sizes in {
            "small": {"B": 4, "T": 256, "H": 2, "K": 32, "V": 32},
            "typical": {"B": 4, "T": 2048, "H": 4, "K": 64, "V": 64},
            "long": {"B": 1, "T": 16384, "H": 2, "K": 64, "V": 64},
            "large64": {"B": 8, "T": 4096, "H": 16, "K": 64, "V": 64},
            "large128": {"B": 8, "T": 4096, "H": 16, "K": 128, "V": 128},
        }.items()
    ),
    Example("long_convolution", "small", _long_convolution, {"B": 64, "T": 64, "D": 64}),
    Example("long_convolution", "typical", _long_convolution, {"B": 4, "T": 2048, "D": 256}),
    Example("long_convolution", "long", _long_convolution, {"B": 1, "T": 16384, "D": 128}),
    Example(
        "attention",
        "small",
        _attention,
        {"B": 4, "T": 256, "H": 4, "K": 32},
        lambda length: {"mask": Causal()},
    ),
    *(
        Example("attention", name, _attention, _HEADS, rule)
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
