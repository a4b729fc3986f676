"""The loss in chunks of positions, against all logits at once in float64."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from runners.training import position_loss

LOG = logging.getLogger(__name__)
B, P, D, V = 3, 29, 8, 50  # 29 is prime: the last chunk is filled up


class Plain(tasks.Task):
    vocab_size, max_length = V, P


def inputs(dtype=jnp.float32, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    hidden = jax.random.normal(keys[0], (B, P, D), dtype)
    embedding = jax.random.normal(keys[1], (V, D))
    targets = jax.random.randint(keys[2], (B, P), 0, V)
    weights = jax.random.bernoulli(keys[3], 0.7, (B, P)).astype(jnp.float32)
    return hidden, embedding, tasks.Batch(jnp.zeros((B, P), int), None, targets, weights)


def expected(hidden, embedding, batch):
    """Loss and gradients in float64 by hand."""
    h, e = (np.asarray(a.astype(jnp.float32), np.float64) for a in (hidden, embedding))
    w = np.asarray(batch.weights, np.float64) / np.asarray(batch.weights).sum()
    logits = h @ e.T
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    one_hot = np.eye(V)[np.asarray(batch.targets)]
    value = -np.sum(w * np.log(np.sum(p * one_hot, -1)))
    g = w[..., None] * (p - one_hot)
    return value, g @ e, np.einsum("bpv,bpd->vd", g, h)


@pytest.fixture
def in_chunks(monkeypatch):
    monkeypatch.setattr(position_loss, "CHUNK_BYTES", 4 * B * V * 4)  # four positions each


def value_and_grad(hidden, embedding, batch):
    def loss(hidden, embedding):
        return position_loss.loss(Plain().loss, hidden, embedding, batch)

    return jax.value_and_grad(loss, (0, 1))(hidden, embedding)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("jit", [False, True])
def test_values_and_gradients(in_chunks, dtype, jit):
    arguments = inputs(dtype)
    function = jax.jit(value_and_grad) if jit else value_and_grad
    value, gradients = function(*arguments)
    true_value, *true_gradients = expected(*arguments)
    # bfloat16 has 8 bits: logits of size 10 are off by 2^-5, the gradients by as much of theirs.
    tolerance = 3e-6 if dtype == jnp.float32 else 4e-2
    np.testing.assert_allclose(value, true_value, rtol=tolerance)
    for found, true in zip(gradients, true_gradients, strict=True):
        error = np.linalg.norm(found.astype(jnp.float32) - true) / np.linalg.norm(true)
        assert error < tolerance


def test_chunks_are_in_use(in_chunks, monkeypatch):
    """The array of all logits is in the plain program and not in this one."""

    def program():
        return str(jax.make_jaxpr(lambda *arguments: value_and_grad(*arguments))(*inputs()))

    assert f"[{B},{P},{V}]" not in program()
    monkeypatch.setattr(position_loss, "CHUNK_BYTES", 2**30)
    assert f"[{B},{P},{V}]" in program()


def test_a_population_is_its_members(in_chunks):
    members = [inputs(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    values, gradients = jax.vmap(value_and_grad)(*stacked)
    for r, member in enumerate(members):
        value, own = value_and_grad(*member)
        np.testing.assert_allclose(values[r], value, rtol=1e-6)
        for a, b in zip(gradients, own, strict=True):
            np.testing.assert_allclose(a[r], b, rtol=1e-5, atol=1e-7)


def test_what_has_no_weight_does_not_matter(in_chunks):
    hidden, embedding, batch = inputs()
    filler = batch.weights == 0
    other = dataclasses.replace(batch, targets=jnp.where(filler, 0, batch.targets))
    changed = jnp.where(filler[..., None], 1e3, hidden)
    before, after = (
        value_and_grad(hidden, embedding, batch),
        value_and_grad(changed, embedding, other),
    )
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1][1], after[1][1])


def test_sums_of_metrics(in_chunks, monkeypatch):
    hidden, embedding, batch = inputs()
    batch = dataclasses.replace(batch, slices={"": batch.weights, "odd": batch.weights * 0.5})

    def metrics(logits, batch):
        return Plain().metrics(logits, batch) | {
            name: tasks.Average(jnp.sum(own * batch.weights), jnp.sum(batch.weights))
            for name, own in batch.slices.items()
        }

    found = position_loss.summed(metrics, hidden, embedding, batch)
    monkeypatch.setattr(position_loss, "CHUNK_BYTES", 2**30)
    for name, average in position_loss.summed(metrics, hidden, embedding, batch).items():
        np.testing.assert_allclose(found[name].total, average.total, rtol=1e-6)
        np.testing.assert_allclose(found[name].count, average.count, rtol=1e-6)


def test_fifty_thousand_words_take_less_than_200_mb():
    """The compiler's count of temporaries; all logits at once would be 3.3 GB and their gradient
    as much again. The gradients themselves are outputs.
    """
    shapes = (
        jax.ShapeDtypeStruct((8, 2048, 768), jnp.float32),
        jax.ShapeDtypeStruct((50_000, 768), jnp.float32),
        tasks.Batch(
            None,
            None,
            jax.ShapeDtypeStruct((8, 2048), jnp.int32),
            jax.ShapeDtypeStruct((8, 2048), jnp.float32),
        ),
    )
    compiled = jax.jit(value_and_grad).lower(*shapes).compile()
    size = compiled.memory_analysis().temp_size_in_bytes
    LOG.info("%.0f MB of temporaries", size / 1e6)
    assert size < 200e6
