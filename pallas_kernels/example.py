"""Named inputs of the operators: tests lower them, benchmarks time them, kernels are tuned on them.

Values are drawn where the models put them: decays near one, keys of unit length on average, step
sizes between 1e-3 and 1e-1.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch

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
      grows: a shape that benchmarks also time at other lengths.
      dtypes: that `arrays` can be asked for.
    """

    operator: str
    name: str
    make: Callable[..., Arrays]
    sizes: Mapping[str, int]
    rule: Callable[[int], dict[str, Any]] = lambda length: {}
    large: bool = False
    grows: bool = False
    dtypes: tuple[str, ...] = ("float32", "bfloat16")

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments that are no arrays."""
        return self.rule(self.sizes["T"])

    def arrays(self, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> Arrays:
        """The operator's arrays by argument name; parameters and states stay in float32.

        Args:
          key: a `jax.random.key`.
          dtype: of activations.
        """
        return self.make(jax.random.split(key, 8), dtype, **self.sizes)

    def with_length(self, length: int) -> "Example":
        """The same at another length T."""
        return dataclasses.replace(self, sizes={**self.sizes, "T": length})


@functools.cache
def examples(operator: str | None = None) -> tuple[Example, ...]:
    """The `EXAMPLES` of `pallas_kernels/<operator>/shapes.py`: of all operators, or of one."""
    if operator is None:
        return tuple(e for name in dispatch.operators() for e in examples(name))
    return importlib.import_module(f"pallas_kernels.{operator}.shapes").EXAMPLES


# Shapes of the operators with a matrix state, whose figures are compared with each other.
_MATRIX_STATE_SIZES: Mapping[str, Mapping[str, int]] = {
    "small": {"B": 4, "T": 256, "H": 2, "K": 32, "V": 32},
    "typical": {"B": 4, "T": 2048, "H": 4, "K": 64, "V": 64},
    "long": {"B": 1, "T": 16384, "H": 2, "K": 64, "V": 64},
    "large64": {"B": 8, "T": 4096, "H": 16, "K": 64, "V": 64},
    "large128": {"B": 8, "T": 4096, "H": 16, "K": 128, "V": 128},
}


def matrix_state_examples(operator: str, make: Callable[..., Arrays]) -> tuple[Example, ...]:
    """The examples of an operator with a matrix state."""
    return tuple(
        Example(
            operator, name, make, sizes, large=name.startswith("large"), grows=name == "typical"
        )
        for name, sizes in _MATRIX_STATE_SIZES.items()
    )


def qkv(keys: jax.Array, dtype: jnp.dtype, B: int, T: int, H: int, K: int, V: int) -> Arrays:
    """Queries and values of variance 1, and keys of length 1 on average."""
    return {
        "q": jax.random.normal(keys[0], (B, T, H, K)).astype(dtype),
        "k": (jax.random.normal(keys[1], (B, T, H, K)) * K**-0.5).astype(dtype),
        "v": jax.random.normal(keys[2], (B, T, H, V)).astype(dtype),
    }
