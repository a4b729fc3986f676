"""Micro-batches: the gradient of the whole batch, less memory, and a run that changes their number.

Sums of float32 in another order differ by its rounding, 6e-8, times a few: 3e-6 of a gradient's
length bounds it. The mean of the micro-batches' means would be off by more than 1e-2 here.
"""

import dataclasses
import functools
import io
import logging
import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import tasks
from runners.core import identity
from runners.core.errors import ConfigError
from runners.core.reporter import Reporter
from runners.core.run_options import RunOptions
from runners.core.signals import Interrupted
from runners.study import config, forecast
from runners.training import accumulation, position_loss
from runners.training.batches import zeros
from runners.training.hyper import stack
from runners.training.loop import train
from runners.training.program import TrainProgram

LOG = logging.getLogger(__name__)
TINY = str(Path(__file__).parents[1] / "tiny_study.py")
B = 8
TOLERANCE = 3e-6
PACKED = "packed_stream:PackedStream"  # rows of several documents, apart by their segment ids


def make(task="mqar", *, model=None, train=None):
    """A trial of the tiny study, without dropout."""
    made = config.Study(TINY).base_trial()
    if task != "mqar":
        made["task"] = {"name": task, "options": {}, "version": 1}
    made["model"] |= {"embedding_dropout": 0.0} | (model or {})
    made["train"] |= train or {}
    return made


def batch_of(program, seed):
    """A batch whose halves have very different weights, and a row that has none."""
    key = jax.random.key(seed)
    if program.task.head == "class":
        inputs = jax.random.normal(key, (B, 64, 1))
        targets = jax.random.randint(key, (B, 1), 0, 10)
        batch = tasks.Batch(inputs, None, targets, jnp.ones((B, 1)))
    elif program.task.packs:
        rows = [program.task.row(seed, b) for b in range(B)]
        batch = program.task.rows_to_batch(jnp.array(rows))
    else:
        batch = program.task.sample(key, B)
    scale = jnp.array([1, 1, 1, 1, 0.1, 0.1, 0.1, 0])[:, None]
    return dataclasses.replace(batch, weights=batch.weights * scale)


def stacked(program, seeds=(0, 1)):
    """Parameters, buffers, seeds and batches of a population."""
    state = program.initial(np.array(seeds, np.uint32))
    batches = [batch_of(program, seed) for seed in seeds]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    return state.params, state.buffers, jnp.array(seeds, jnp.uint32), batch


def gradients(program, count, arguments):
    """Losses [R] and gradients [R, …] of a population from so many micro-batches."""

    def of_trial(params, buffers, seed, batch):
        loss = functools.partial(program.loss, buffers=buffers, seed=seed, step=jnp.int32(3))
        return accumulation.value_and_grad(loss, params, batch, count)

    return jax.jit(jax.vmap(of_trial))(*arguments)


def distance(found, expected):
    """Of two trees of arrays [R, …], relative to the length of the second, [R]."""

    def length(tree):
        return np.sqrt(sum((x.reshape(len(x), -1) ** 2).sum(1) for x in jax.tree.leaves(tree)))

    return length(jax.tree.map(jnp.subtract, found, expected)) / length(expected)


@pytest.mark.parametrize(
    ("task", "chunked", "z_loss"),
    [
        ("mqar", False, 0.0),
        ("mqar", True, 0.1),
        (PACKED, False, 0.1),
        (PACKED, True, 0.0),
        ("digits", False, 0.0),
    ],
)
def test_the_gradient_is_that_of_the_whole_batch(monkeypatch, task, chunked, z_loss):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    if chunked:
        monkeypatch.setattr(position_loss, "CHUNK_BYTES", 256)
    program = TrainProgram(make(task, train={"z_loss": z_loss}))
    arguments = stacked(program)
    value, expected = gradients(program, 1, arguments)
    for count in (2, 8):
        found_value, found = gradients(program, count, arguments)
        np.testing.assert_allclose(found_value, value, rtol=TOLERANCE)
        assert np.all(distance(found, expected) < TOLERANCE)


def test_the_mean_of_means_is_another_gradient():
    """The tests above would find it."""
    program = TrainProgram(make())
    params, buffers, seeds, batch = stacked(program)
    _, expected = gradients(program, 1, (params, buffers, seeds, batch))
    halves = [jax.tree.map(lambda a, h=h: a[:, h], batch) for h in (slice(0, 4), slice(4, 8))]
    found = [gradients(program, 1, (params, buffers, seeds, half))[1] for half in halves]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *found)
    assert np.all(distance(mean, expected) > 1e-2)


def test_one_micro_batch_is_the_program_without_any():
    program = TrainProgram(make())
    params, buffers, seeds, batch = jax.tree.map(lambda a: a[0], stacked(program))

    def plain(params, buffers, seed, batch):
        return jax.value_and_grad(program.loss)(params, buffers, seed, batch, jnp.int32(3))

    def in_one(params, buffers, seed, batch):
        loss = functools.partial(program.loss, buffers=buffers, seed=seed, step=jnp.int32(3))
        return accumulation.value_and_grad(loss, params, batch, 1)

    texts = [
        jax.jit(f).lower(params, buffers, seeds, batch).as_text().replace(f.__name__, "f")
        for f in (plain, in_one)
    ]
    assert texts[0] == texts[1]


def test_an_auxiliary_loss_is_the_mean_over_micro_batches():
    def build(balance):
        options = {"rule": "linear", "num_memories": 4, "num_heads": 2, "balance": balance}
        return TrainProgram(make(model={"mixer": "mom", "mixer_options": options}))

    without, program = build(0.0), build(1.0)
    params, buffers, seeds, batch = stacked(program)
    plain, _ = gradients(without, 1, (params, buffers, seeds, batch))
    auxiliary = []
    for half in (slice(0, 4), slice(4, 8)):
        arguments = (params, buffers, seeds, jax.tree.map(lambda a, h=half: a[:, h], batch))
        values = [gradients(p, 1, arguments)[0] for p in (program, without)]
        auxiliary.append(values[0] - values[1])
    assert np.all(np.abs(auxiliary[0] - auxiliary[1]) > 1e-3)  # not linear in the batch
    found, _ = gradients(program, 2, (params, buffers, seeds, batch))
    np.testing.assert_allclose(found, plain + (auxiliary[0] + auxiliary[1]) / 2, rtol=1e-5)


def test_every_micro_batch_has_dropout_masks_of_its_own():
    program = TrainProgram(make(model={"embedding_dropout": 0.5}))
    params, buffers, seed, batch = jax.tree.map(lambda a: a[0], stacked(program))
    weight = jnp.sum(batch.weights)
    losses = [
        program.loss(params, buffers, seed, batch, step, accumulation.Piece(index, 2, weight))
        for step, index in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert losses[0] == losses[1]
    assert len(set(map(float, losses))) == 3


def test_a_step_of_the_program():
    """The whole step: data, gradients, clipping and Adam, of two trials."""
    trial = make()
    programs = [TrainProgram(trial), TrainProgram(trial, accumulate=4)]
    hyper = stack([trial, trial | {"seed": 1}])
    losses, moments = [], []
    for program in programs:
        state = program.advance(program.initial(hyper["seed"]), hyper, zeros(program))
        losses.append(state.loss)
        # The first moment is a multiple of the gradient, which Adam has not yet divided by √v.
        moments.append(state.opt_state[1].mu)
    np.testing.assert_allclose(losses[1], losses[0], rtol=TOLERANCE)
    assert np.all(distance(moments[1], moments[0]) < TOLERANCE)
    assert programs[0].flops_per_step == programs[1].flops_per_step


def temporaries(program):
    hyper = stack([program.config])
    state = jax.eval_shape(program.initial, hyper["seed"])
    compiled = program.advance.lower(state, hyper, zeros(program)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_the_temporaries_of_a_step_shrink():
    """By the compiler's count, where activations are most of them."""
    trial = make(train={"batch_size": 64}, model={"d_model": 32})
    trial["task"]["options"] |= {"length": 256}
    sizes = {count: temporaries(TrainProgram(trial, accumulate=count)) for count in (1, 4, 16)}
    LOG.info({count: f"{size / 1e6:.1f} MB" for count, size in sizes.items()})
    assert sizes[4] < 0.5 * sizes[1]
    assert sizes[16] < 0.5 * sizes[4]


def test_a_forecast_is_of_the_step_that_will_run():
    trial = make(train={"batch_size": 64})
    seconds, peak = forecast.step_cost(TrainProgram(trial, accumulate=4))
    assert seconds > 0
    assert peak < forecast.step_cost(TrainProgram(trial))[1]


@pytest.mark.parametrize(("count", "words"), [(3, "2 or 4"), (7, "4 or 8"), (9, "as 8")])
def test_a_number_that_does_not_divide_the_batch_is_refused(count, words):
    with pytest.raises(ConfigError, match=f"--accumulate is {count}.*train.batch_size 8.*{words}"):
        TrainProgram(make(), accumulate=count)


class Stopping(Reporter):
    """Asks for an end after the first call of the training program."""

    def update(self, done, status):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_is_resumed_with_another_number(tmp_path):
    """The ids are the same, and so are the numbers up to the rounding of 24 steps of Adam."""
    settings = [make(), make() | {"seed": 1}]
    trials = {identity.trial_id(t): t for t in settings}

    def run(name, reporter, **options):
        folder = tmp_path / name
        options = RunOptions(checkpoint_seconds=3600, **options)
        return train(trials, folder, folder / "runs" / "p", reporter(quiet), options).records

    quiet = Console(file=io.StringIO())
    whole = run("whole", Reporter)
    with pytest.raises(Interrupted):
        run("resumed", Stopping, accumulate=4)
    resumed = run("resumed", Reporter, accumulate=1)
    assert "resumed at step" in quiet.file.getvalue()
    for record, expected in zip(resumed, whole, strict=True):
        assert record["accumulate"] == 1
        assert record["steps"] == expected["steps"]
        np.testing.assert_allclose(
            record["metrics"]["test/loss"], expected["metrics"]["test/loss"], rtol=1e-3
        )
    assert run("fours", Reporter, accumulate=4)[0]["accumulate"] == 4
