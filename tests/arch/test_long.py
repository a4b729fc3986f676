"""The split law, gradients and causality at a length beyond every operator's first block.

T = 149 is past the chunks of gated linear attention (64), the length from which convolutions are
FFTs (64) and the blocks of queries of attention (128), and prime.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch

T = 149
NAMES = [name for name in arch.names() if arch.get(name).causal]


def relative(a, b):
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("name", NAMES)
def test_long_sequences_obey_the_laws(build, name):
    """Sums of at most 149 · 64 float32 terms: √(149 · 64) · 6e-8 ≈ 6e-6, a factor 16 to spare."""
    mixer = build(name, max_length=T)
    x = jax.random.normal(jax.random.key(0), (2, T, 32))
    tokens = jax.random.randint(jax.random.key(2), x.shape[:2], 0, 6)
    weights = jax.random.normal(jax.random.key(1), x.shape)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def parallel(x, tokens):
        y = mixer(x, arch.Context(tokens=tokens))
        return (y * weights).sum(), y

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def in_parts(x):
        state, outputs = mixer.initial_state(2, T), []
        for start, stop in [(0, 70), (70, 71), (71, T)]:
            context = arch.Context(tokens=tokens[:, start:stop])
            state, y = mixer.extend(state, x[:, start:stop], context)
            outputs.append(y)
        y = jnp.concatenate(outputs, axis=1)
        return (y * weights).sum(), y

    (_, y), dx = parallel(x, tokens)
    (_, y_parts), dx_parts = in_parts(x)
    assert relative(y_parts, y) < 1e-4
    assert relative(dx_parts, dx) < 1e-4

    (_, changed), _ = parallel(x.at[:, 100:].add(1.0), tokens.at[:, 100:].add(1))
    assert relative(changed[:, :100], y[:, :100]) < (1e-5 if mixer.uses_fft else 1e-6)
    assert relative(changed[:, 100:], y[:, 100:]) > 1e-3
