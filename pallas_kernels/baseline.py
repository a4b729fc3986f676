"""Baselines of the operators: plain JAX that a user would write today instead of each.

`pallas_kernels/<operator>/baselines.py` has a dict `BASELINES` of them by name. Each takes the
operator's arrays by name, and its options, and returns the same. Plain `lax.scan` is missing: it is
every recurrence's "reference" implementation. `lax.associative_scan` runs over materialised states,
[B, T, D, N] or [B, T, H, K, V].
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Baseline = Callable[..., Any]


def baselines(operator: str) -> Mapping[str, Baseline]:
    """The baselines of an operator by name."""
    return importlib.import_module(f"pallas_kernels.{operator}.baselines").BASELINES


def associative_scan(decay: jax.Array, x: jax.Array, state: jax.Array) -> jax.Array:
    """All h_t = decay_t h_{t−1} + x_t of axis 1, with h_0 = `state`."""
    x = x.at[:, 0].add(decay[:, 0] * state)
    return jax.lax.associative_scan(_combine, (decay, x), axis=1)[1]


def _combine(left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]) -> Any:
    """Composition of h ↦ a_l h + x_l, then h ↦ a_r h + x_r."""
    (a_l, x_l), (a_r, x_r) = left, right
    return a_l * a_r, a_r * x_l + x_r


def in_float32(function: Baseline) -> Baseline:
    """Computes as the operators do: bfloat16 in and out, float32 between."""

    def call(**arrays: jax.Array) -> Any:
        wide = {n: a.astype(jnp.promote_types(a.dtype, jnp.float32)) for n, a in arrays.items()}
        result = function(**wide)
        dtype = min((a.dtype for a in arrays.values()), key=lambda dtype: dtype.itemsize)
        if isinstance(result, tuple):
            return (result[0].astype(dtype), *result[1:])
        return result.astype(dtype)

    return call
