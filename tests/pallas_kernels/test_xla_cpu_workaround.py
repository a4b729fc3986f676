"""XLA's CPU backend returns the same right values however often a program is compiled."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import arch
from arch import gla
from pallas_kernels import gated_linear_attention


@pytest.mark.parametrize("batch_size", [128, 256])
def test_every_compilation_is_right(batch_size, monkeypatch):
    """With YNNPACK a third of these compilations gave values that had nothing to do with the input.

    2e-6 is ten times the error that right compilations show.
    """
    mixer = arch.build("gla", 32, rngs=nnx.Rngs(0), num_heads=1)
    x = jax.random.normal(jax.random.key(batch_size), (batch_size, 32, 32))

    def compiled(implementation):
        operator = functools.partial(gated_linear_attention, implementation=implementation)
        monkeypatch.setattr(gla, "gated_linear_attention", operator)
        return jax.jit(lambda m, x: m(x)).lower(mixer, x).compile()(mixer, x)

    expected = compiled("reference")
    for _ in range(4):
        error = jnp.sqrt(jnp.mean((compiled("xla") - expected) ** 2) / jnp.mean(expected**2))
        assert float(error) < 2e-6
