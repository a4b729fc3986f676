"""Builds mixers for the tests of architectures."""

import jax
import pytest
from flax import nnx

import arch

D_MODEL = 32
MAX_LENGTH = 40


@pytest.fixture(scope="session")
def build():
    """build(name, **options): a mixer whose every parameter is moved off its initial value.

    Initial biases are zero and initial weights small, which hides whole terms of the equations.
    """

    def build(name, d_model=D_MODEL, max_length=MAX_LENGTH, **options):
        mixer = arch.build(name, d_model, rngs=nnx.Rngs(0), max_length=max_length, **options)
        leaves, treedef = jax.tree.flatten(mixer)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        moved = [
            leaf + 0.05 * jax.random.normal(key, leaf.shape)
            for leaf, key in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(treedef, moved)

    return build
