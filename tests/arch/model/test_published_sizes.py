"""Published models have the parameters that their papers report."""

import math

import jax
import pytest
from flax import nnx

import arch
from arch.model.published_sizes import MODELS


def count(backbone):
    """Parameters, without building any."""
    model = jax.eval_shape(
        lambda: nnx.state(arch.Backbone(**backbone, max_length=64, rngs=nnx.Rngs(0)), nnx.Param)
    )
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(model))


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_the_reported_ones(name):
    model = arch.published(name)
    counted = count(model.backbone)
    if model.parameters is None:
        pytest.skip(f"no count is reported; here {counted:,}")
    # A source that gives every digit is met to the digit, one that rounds to within 1%.
    tolerance = 0 if model.parameters % 10_000 else 0.01
    assert counted == pytest.approx(model.parameters, rel=tolerance, abs=0)


def test_unknown_name():
    with pytest.raises(ValueError, match="did you mean 'mamba-130m'"):
        arch.published("mamba-130M")
