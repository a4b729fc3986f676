"""Builds mixers for the tests of architectures."""

import pytest
from flax import nnx
from perturbed import perturbed

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
        return perturbed(mixer, 0.05)

    return build
