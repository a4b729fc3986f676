"""What every task inherits: how training, validation and test batches are made of examples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from tasks import Average, Batch, Part
from tasks.interface import Drawn


class Fingerprint(tasks.Task):
    """Each example is 62 random bits: two examples agree only if they are one."""

    vocab_size = 2
    max_length = 2

    def __init__(self, size):
        self.size = size

    def parts(self, split):
        size = self.size if split == "train" else 250
        return (Part("first", 2, size), Part("second", 2, size))

    def example(self, key, split="train", part=0):
        bits = jax.random.randint(key, (2,), 0, 2**31 - 1)
        one = jnp.ones(1, jnp.int32)
        return Batch(inputs=bits, loss_positions=one, targets=one, weights=jnp.ones(1))

    def reference_scores(self):
        return {"chance": 0.5, "oracle": 1.0}


def rows(batches):
    """All examples of a list of batches, as hashable rows."""
    return [tuple(row) for batch in batches for row in np.asarray(batch.inputs).tolist()]


def train_rows(task, key, steps, batch_size, part=0):
    draw = jax.jit(lambda step: task.train_batch(key, step, batch_size, part))
    return rows(draw(step) for step in range(steps))


def test_an_epoch_visits_each_example_once():
    """1000 examples in batches of 64: epochs end within a batch, which goes on with the next."""
    seen = train_rows(Fingerprint(1000), jax.random.key(0), 47, 64)
    epochs = [seen[i : i + 1000] for i in (0, 1000, 2000)]
    assert all(len(set(epoch)) == 1000 for epoch in epochs)
    assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
    for a, b in ((0, 1), (1, 2), (0, 2)):  # random orders agree at about one place
        assert sum(x == y for x, y in zip(epochs[a], epochs[b], strict=True)) < 20


def test_the_order_does_not_depend_on_the_batch_size():
    task, key = Fingerprint(10), jax.random.key(1)
    assert (
        train_rows(task, key, 42, 1) == train_rows(task, key, 6, 7) == train_rows(task, key, 2, 21)
    )


def test_keys_and_parts_have_training_sets_of_their_own():
    task = Fingerprint(100)
    sets = [
        set(rows([batch]))
        for part in (0, 1)
        for draw in [jax.jit(lambda key, part=part: task.train_batch(key, 0, 100, part))]
        for batch in (draw(jax.random.key(0)), draw(jax.random.key(1)))
    ]
    assert len(set.union(*sets)) == 400


def test_endless_training_never_repeats():
    task = Fingerprint(None)
    seen = [r for part in (0, 1) for r in train_rows(task, jax.random.key(0), 100, 64, part)]
    assert len(set(seen)) == 2 * 100 * 64


def test_steps_and_keys_may_be_traced_over_a_population():
    """Under scan and vmap, as the trainer has it, the batches are those of single calls."""
    for task in (Fingerprint(100), Fingerprint(None)):
        keys = jax.random.split(jax.random.key(5), 3)

        def train(key, task=task):
            def body(step, _):
                return step + 1, task.train_batch(key, step, 64).inputs

            return jax.lax.scan(body, jnp.int32(2), length=4)[1]

        together = jax.jit(jax.vmap(train))(keys)
        single = jax.jit(lambda key, step, task=task: task.train_batch(key, step, 64).inputs)
        for r, key in enumerate(keys):
            for s in range(4):
                np.testing.assert_array_equal(together[r, s], single(key, s + 2))


@pytest.mark.parametrize("batch_size", [1, 50, 64, 250, 1000])
def test_evaluation_covers_the_same_set_with_any_batch_size(batch_size):
    task = Fingerprint(None)
    draw = jax.jit(lambda step: task.eval_batch(step, batch_size, "test"))
    batches = [draw(step) for step in range(-(-250 // batch_size))]
    assert sum(float(batch.weights.sum()) for batch in batches) == 250
    kept = [
        row
        for batch in batches
        for row, weight in zip(rows([batch]), np.asarray(batch.weights)[:, 0], strict=True)
        if weight
    ]
    assert kept == rows([task.eval_batch(0, 250, "test")])


def test_evaluation_sets_are_disjoint():
    task = Fingerprint(None)
    sets = [
        set(rows([task.eval_batch(0, 250, split, part)]))
        for split in ("validation", "test")
        for part in (0, 1)
    ]
    assert len(set.union(*sets)) == 1000


def test_only_fixed_sets_are_evaluated():
    with pytest.raises(ValueError, match="'train' is not a fixed finite set"):
        Fingerprint(100).eval_batch(0, 10, "train")


@pytest.mark.parametrize("size", [0, -1, 2**30 + 1])
def test_impossible_parts(size):
    with pytest.raises(ValueError, match=rf"'p' has num_examples={size}: expected 1 to 2\*\*30"):
        Part("p", 2, size)


def test_metrics_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 5))
    targets = rng.integers(0, 5, (3, 4))
    weights = rng.integers(0, 2, (3, 4)).astype(np.float64)
    batch = Batch(jnp.zeros((3, 9), jnp.int32), jnp.zeros((3, 4), jnp.int32), targets, weights)
    measured = Fingerprint(None).metrics(jnp.asarray(logits, jnp.float32), batch)

    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    hits = logits.argmax(-1) == targets
    # Twelve terms of size ~2, each with a few roundings of 6e-8.
    np.testing.assert_allclose(measured["loss"].value, (loss * weights).sum() / weights.sum(), 1e-6)
    assert measured["accuracy"].total == (hits * weights).sum()
    assert measured["accuracy"].count == weights.sum()


def test_averages_are_exact_over_any_batching():
    task = Fingerprint(None)
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(250, 1, 2)), jnp.float32)

    def evaluate(batch_size):
        @jax.jit
        def measure(step):
            index = step * batch_size + jnp.arange(batch_size)
            batch = task.eval_batch(step, batch_size, "validation")
            return task.metrics(logits[jnp.minimum(index, 249)], batch)["accuracy"]

        total = Average(jnp.zeros(()), jnp.zeros(()))
        for step in range(-(-250 // batch_size)):
            total = total + measure(step)
        return float(total.total), float(total.count), float(total.value)

    whole = evaluate(250)
    assert whole[1] == 250
    assert whole == evaluate(64) == evaluate(1000) == evaluate(7)


def test_an_average_of_nothing_is_zero():
    assert float(Average(jnp.zeros(()), jnp.zeros(())).value) == 0


def test_what_a_task_must_define():
    for call in (
        lambda t: t.parts("test"),
        lambda t: t.example(jax.random.key(0)),
        lambda t: t.reference_scores(),
    ):
        with pytest.raises(TypeError, match="Task must define"):
            call(tasks.Task())


def test_batches_are_pytrees():
    batch = Fingerprint(None).eval_batch(0, 2, "test")
    assert len(jax.tree.leaves(batch)) == 4
    assert len(jax.tree.leaves(dataclasses.replace(batch, mask=jnp.ones((2, 2), bool)))) == 5


def test_a_task_is_drawn_inside_the_program_unless_it_says_otherwise():
    task = tasks.build("mqar")
    for split in tasks.SPLITS:
        source = task.source(split, resident_bytes=0)
        assert source == Drawn(task, split)
        assert source.abstract(8) == tasks.Given()
    key = jax.random.key(0)
    drawn = task.source("train").train_batch(tasks.Given(), key, jnp.int32(3), 8, 0)
    jax.tree.map(np.testing.assert_array_equal, drawn, task.train_batch(key, 3, 8))
    with pytest.raises(TypeError, match=r"Source must define train_batch"):
        tasks.Source().train_batch(tasks.Given(), key, jnp.int32(0), 8, 0)
