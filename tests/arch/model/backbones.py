"""Small backbones and their inputs for the tests of heads and padding."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from perturbed import perturbed

import arch

B, T, REAL, D, V, F, C = 3, 13, 8, 16, 11, 3, 4
forward = jax.jit(lambda model, x, mask: model(x, mask=mask))

# Sums of at most 38 float32 terms in about twenty stages, √38 · 6e-8 each, and as in the laws of
# the mixers a factor 10 for what cancels.
TOLERANCE = 1e-4

# Every way to see the future, and mixers that do not, alone and below one that does.
MIXERS = {
    "attention": ("attention", {"num_heads": 2, "causal": False}),
    "bidirectional gla": ("bidirectional", {}),
    "bidirectional base_conv": ("bidirectional", {"mixer": "base_conv"}),
    "s4": ("s4", {"bidirectional": True, "d_state": 8}),
    "s4d": ("s4d", {"bidirectional": True, "d_state": 8}),
    "causal s4d": ("s4d", {"d_state": 8}),
    "causal gla": ("gla", {}),
    "pattern": (("base_conv", "s4d"), {"s4d": {"bidirectional": True, "d_state": 8}}),
}


def build(mixer="s4d", head="class", seed=0, **options):
    """A backbone whose every parameter is moved off its initial value, which hides many terms."""
    name, mixer_options = MIXERS[mixer]
    inputs = {} if "num_features" in options else {"vocab_size": V}
    model = arch.Backbone(
        name,
        D,
        num_layers=2,
        max_length=32,
        head=head,
        mixer_options=mixer_options,
        rngs=nnx.Rngs(seed),
        **{"num_classes": C} | inputs | options,
    )
    return perturbed(model, 0.05)


def ids(shape, seed=0):
    return jax.random.randint(jax.random.key(seed), shape, 0, V)


def padded(x, length, seed, axis=1):
    """x up to T = REAL, and behind it `length − REAL` ids of another seed; and the mask."""
    noise = ids((*x.shape[:axis], length), seed)
    mask = jnp.broadcast_to(jnp.arange(length) < REAL, noise.shape)
    return noise.at[..., :REAL].set(x), mask


def error(actual, expected):
    actual, expected = (np.asarray(a, np.float64) for a in (actual, expected))
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)
