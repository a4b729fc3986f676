"""AdamW by parameter type: what decays, and which learning rate it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import arch
from runners.training.optimizer import adamw

CONFIG = {"b1": 0.9, "b2": 0.999, "epsilon": 1e-8, "clip_norm": None, "ssm_learning_rate": 1e-3}


class Three(nnx.Module):
    def __init__(self):
        self.weight = nnx.Param(jnp.ones(2))
        self.gain = arch.Undecayed(jnp.ones(2))
        self.step = arch.SSMParam(jnp.ones(2))


def hyper(learning_rate, weight_decay):
    return {"learning_rate": learning_rate, "weight_decay": weight_decay}


def step(gradient, learning_rate, weight_decay=0.5, factor=1.0, **config):
    params = nnx.state(Three())
    transform = adamw(CONFIG | config, hyper(learning_rate, weight_decay), factor)
    grads = jax.tree.map(lambda p: jnp.full_like(p, gradient), params)
    updates, _ = transform.update(grads, transform.init(params), params)
    return {k: float(v[...][0]) for k, v in updates.items()}


def test_only_plain_parameters_decay():
    assert step(0.0, 1e-2) == pytest.approx({"weight": -1e-2 * 0.5, "gain": 0.0, "step": 0.0})


def test_state_space_parameters_take_at_most_their_own_rate():
    # Adam's first step is the sign of the gradient, to epsilon.
    updates = step(1.0, 1e-2, weight_decay=0.0)
    assert updates == pytest.approx({"weight": -1e-2, "gain": -1e-2, "step": -1e-3}, rel=1e-5)
    updates = step(1.0, 1e-4, weight_decay=0.0)
    assert updates == pytest.approx({"weight": -1e-4, "gain": -1e-4, "step": -1e-4}, rel=1e-5)


def test_the_schedule_scales_step_and_decay_alike():
    whole, half = step(1.0, 1e-2), step(1.0, 1e-2, factor=0.5)
    assert half == pytest.approx({k: v / 2 for k, v in whole.items()}, rel=1e-6)


def test_equals_optax_where_types_do_not_matter():
    """The same equations in the same order; several steps of float32 differ by rounding alone."""
    params = {"w": jnp.array([0.5, -2.0, 1.0])}
    theirs, ours = optax.adamw(1e-2, weight_decay=0.1), adamw(CONFIG, hyper(1e-2, 0.1), 1.0)

    def run(transform, params):
        state = transform.init(params)
        for i in range(5):
            grads = jax.tree.map(lambda p, i=i: jnp.sin(p + i), params)
            updates, state = transform.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params["w"]

    module = nnx.State({"w": nnx.Param(params["w"])})
    expected = run(theirs, params)
    np.testing.assert_allclose(run(ours, module)[...], expected, rtol=1e-6)


def test_clipping_bounds_the_gradient_that_adam_sees():
    # Through Adam's first step only the sign survives, so that the clip is seen on its moments.
    transform = adamw(CONFIG | {"clip_norm": 1.0}, hyper(1e-2, 0.0), 1.0)
    params = nnx.state(Three())
    grads = jax.tree.map(lambda p: jnp.full_like(p, 10.0), params)
    _, state = transform.update(grads, transform.init(params), params)
    moments = jnp.concatenate(jax.tree.leaves(state[1].mu))
    np.testing.assert_allclose(jnp.linalg.norm(moments), 0.1, rtol=1e-5)  # (1 − b1) · 1
