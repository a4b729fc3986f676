"""Long rows in the recurrent form, against the parallel form at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch
import tasks
from runners.training import evaluation

T, FACTOR, V = 8, 4, 11


class Long(tasks.Task):
    """Rows of T tokens, and of FACTOR times as many."""

    vocab_size, max_length = V, T

    def parts(self, split):
        lengths = (T,) if split == "train" else (T, FACTOR * T)
        return tuple(tasks.Part(f"length={n}", n, None if split == "train" else 5) for n in lengths)

    def example(self, key, split="train", part=0):
        length = self.parts(split)[part].length
        tokens = jax.random.randint(key, (length + 1,), 0, V)
        weights = (jnp.arange(length) % 3 > 0).astype(jnp.float32)
        return tasks.Batch(tokens[:-1], None, tokens[1:], weights)

    def reference_scores(self):
        return {"chance": 1 / V}


def model(mixer, **options):
    return arch.Backbone(
        mixer, 16, num_layers=2, vocab_size=V, max_length=T, rngs=nnx.Rngs(0), **options
    )


def found(model):
    task = Long()
    source, given = task.source("test"), tasks.Given()
    return evaluation.averages(model, task, source, given, "test", 2)


@pytest.mark.parametrize("mixer", ["attention", "gla", "mamba", "lstm", "base_conv"])
def test_long_rows_are_read_part_by_part(mixer):
    short, long = found(model(mixer))
    own = model(mixer)
    batch = Long().eval_batch(jnp.int32(0), 5, "test", 1)
    expected = Long().metrics(own(batch.inputs), batch)
    assert short.keys() == long.keys() == expected.keys()
    for name, average in expected.items():
        np.testing.assert_allclose(long[name].value, average.value, rtol=1e-4)
        assert long[name].count == average.count


@pytest.mark.parametrize(
    ("mixer", "options"), [("hyena", {}), ("gla", {"position_embedding": True})]
)
def test_a_model_that_ends_before_is_not_tested_on_long_rows(mixer, options):
    short, long = found(model(mixer, **options))
    assert short
    assert long == {}


def test_averages_are_over_the_parts_that_have_them():
    task = Long()
    pieces = [
        {"loss": tasks.Average(jnp.array([6.0]), jnp.array([2.0]))},
        {
            "loss": tasks.Average(jnp.array([4.0]), jnp.array([2.0])),
            "own": tasks.Average(jnp.array([3.0]), jnp.array([1.0])),
        },
    ]
    values = evaluation.values(task, "test", pieces)
    assert {name: float(value[0]) for name, value in values.items()} == {
        "test/loss": 2.5,
        f"test/loss/length={T}": 3.0,
        f"test/loss/length={FACTOR * T}": 2.0,
        "test/own": 3.0,
    }


def test_memory_of_long_rows_does_not_grow_with_their_length():
    """The compiler's count for a state of fixed size, at 8 and at 64 times the training length."""

    def temporaries(factor):
        class Longer(Long):
            def parts(self, split):
                return (tasks.Part("", factor * T, 4),)

        task, own = Longer(), model("gla")
        source = task.source("test")
        graph, state = nnx.split(own)

        def run(state):
            merged = nnx.merge(graph, state)
            return evaluation.averages(merged, task, source, tasks.Given(), "test", 4)

        return jax.jit(run).lower(state).compile().memory_analysis().temp_size_in_bytes

    tokens = 4 * 56 * T * 4  # ids of the longer rows, as int32
    assert temporaries(64) - temporaries(8) < 8 * tokens
