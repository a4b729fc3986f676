"""What every task over stored data inherits: orders, batches, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from tasks.stored import ResidentRows, StreamedRows


class Numbers(tasks.StoredTask):
    """Row i of a split is i times its number's digits: each row is known by its inputs."""

    vocab_size = 100
    num_classes = 10
    max_length = 3

    def __init__(self, size=50):
        self.num_examples = {"train": size, "validation": 7, "test": 9}
        self.spec = {
            "inputs": jax.ShapeDtypeStruct((3,), jnp.uint8),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
            "length": jax.ShapeDtypeStruct((), jnp.int32),
        }

    def read(self, split, indices):
        indices = np.asarray(indices)
        assert set(indices.tolist()) <= set(range(self.num_examples[split]))
        digits = np.stack([indices // 10, indices % 10, 0 * indices], -1).astype(np.uint8)
        return {"inputs": digits, "label": indices % 10, "length": 1 + indices % 3}


def rows_of(batch):
    return (batch.inputs[:, 0] * 10 + batch.inputs[:, 1]).tolist()


def test_an_epoch_visits_each_row_once_and_the_next_in_another_order():
    task, key = Numbers(), jax.random.key(0)
    seen = [row for step in range(13) for row in rows_of(task.train_batch(key, step, 8))][:100]
    assert sorted(seen[:50]) == sorted(seen[50:]) == list(range(50))
    assert sum(a == b for a, b in zip(seen[:50], seen[50:], strict=True)) < 8
    assert seen[:50] != list(range(50))


def test_the_order_depends_on_the_key_and_not_on_the_batch_size():
    task = Numbers()
    by_eight = [r for s in range(6) for r in rows_of(task.train_batch(jax.random.key(1), s, 8))]
    by_four = [r for s in range(12) for r in rows_of(task.train_batch(jax.random.key(1), s, 4))]
    other = [r for s in range(6) for r in rows_of(task.train_batch(jax.random.key(2), s, 8))]
    assert by_eight == by_four
    assert by_eight != other


def test_the_row_numbers_can_be_traced():
    task, key = Numbers(), jax.random.key(0)
    traced = jax.jit(lambda step: task.train_indices(key, step, 8))
    for step in (0, 6, 100):
        assert traced(jnp.int32(step)).tolist() == rows_of(task.train_batch(key, step, 8))


@pytest.mark.parametrize("batch_size", [1, 4, 9, 16])
def test_evaluation_counts_each_row_once(batch_size):
    task = Numbers()
    whole = {k: jnp.asarray(v) for k, v in task.read("test", np.arange(9)).items()}
    counted = []
    for step in range(-(-9 // batch_size)):
        batch = task.eval_rows(whole, jnp.int32(step), batch_size)
        assert batch.inputs.shape == (batch_size, 3)
        kept = np.asarray(batch.weights[:, 0]) > 0
        counted += np.asarray(rows_of(batch))[kept].tolist()
        eager = task.eval_batch(step, batch_size, "test")
        jax.tree.map(np.testing.assert_array_equal, batch, eager)
    assert counted == list(range(9))


def test_a_batch_knows_its_padding_and_its_labels():
    batch = Numbers().batch(Numbers().read("train", np.array([12, 31])))
    assert batch.mask.tolist() == [[True, False, False], [True, True, False]]
    assert batch.targets.tolist() == [[2], [1]]
    assert batch.weights.tolist() == [[1], [1]]
    assert batch.inputs.dtype == jnp.int32


def test_accuracy_is_that_of_whole_sequences():
    task = Numbers()
    batch = task.batch(task.read("train", np.array([12, 31, 45, 7])))
    logits = jax.nn.one_hot(jnp.array([[2], [1], [5], [0]]), 10)
    assert float(task.metrics(logits, batch)["accuracy"].value) == 0.75


def test_training_rows_beyond_the_limit_are_streamed_and_others_stay():
    task, train_bytes = Numbers(), 50 * (3 + 4 + 4)
    assert task.source("train") == ResidentRows(task, "train")
    assert task.source("train", train_bytes) == ResidentRows(task, "train")
    assert task.source("train", train_bytes - 1) == StreamedRows(task)
    assert task.source("test", 0) == ResidentRows(task, "test")
    assert task.num_stored_rows == 66


def test_resident_and_streamed_rows_make_the_same_batches():
    task, key = Numbers(), jax.random.key(0)
    resident, streamed = task.source("train"), task.source("train", 0)
    given = tasks.Given(resident=resident.resident())
    steps = streamed.stream(key[None], 8, 5, 9, tasks.Shard())
    for step, rows in enumerate(steps, 5):
        own = tasks.Given(streamed={name: a[0] for name, a in rows.items()})
        ours = streamed.train_batch(own, key, jnp.int32(step), 8, 0)
        theirs = resident.train_batch(given, key, jnp.int32(step), 8, 0)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    for split in ("train", "test"):
        shapes = task.source(split).abstract(8).resident
        rows = task.source(split).resident()
        jax.tree.map(lambda shape, a: np.testing.assert_equal(a.shape, shape.shape), shapes, rows)


def test_what_is_not_defined_says_so():
    class Nothing(tasks.StoredTask):
        pass

    with pytest.raises(TypeError, match="Nothing must define read"):
        Nothing().read("train", np.arange(2))
