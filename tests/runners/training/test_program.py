"""The compiled program of a population: data schedule, independence of trials, counts."""

import copy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from runners.core import flops
from runners.study import config
from runners.training.mixture import parts_of
from runners.training.optimizer import schedule
from runners.training.program import MAX_STEPS, Steps, TrainProgram, TrainState

TINY = str(Path(__file__).parents[1] / "tiny_study.py")
STEPS = 6


def hyper(seeds, rates):
    return {
        "seed": np.array(seeds, np.uint32),
        "learning_rate": np.array(rates, np.float32),
        "weight_decay": np.full(len(seeds), 0.1, np.float32),
    }


def parts(program, start, stop):
    return parts_of(program.train_parts, program.batch_size, start, stop, MAX_STEPS)


def advance(program, state, h, start, stop):
    where = (np.int32(start), np.int32(stop), *parts(program, start, stop))
    return program.advance(state, h, Steps(*where, tasks.Given()))


@pytest.fixture(scope="module", params=["plain", "mixture"])
def program(request):
    return TrainProgram(config.Study(f"{TINY}:{request.param}").base_trial())


def test_population_equals_single_runs(program):
    """R trials in one program end where R programs of one trial end.

    A batched product may add in another order than a single one: gradients differ by rounding, and
    Adam, which divides by √v, makes up to a whole step of it where a gradient is nearly zero. Few
    numbers are like that, so that the distance of all parameters is what stays small: a wrong seed,
    rate or decay would move it by some 6 · 1e-2.
    """
    together = hyper([0, 1, 2], [1e-3, 1e-2, 3e-3])
    many = advance(program, program.initial(together["seed"]), together, 0, STEPS)
    for r in range(3):
        alone = jax.tree.map(lambda x, r=r: x[r : r + 1], together)
        one = advance(program, program.initial(alone["seed"]), alone, 0, STEPS)
        theirs = jnp.concatenate([p[r].ravel() for p in jax.tree.leaves(many.params)])
        ours = jnp.concatenate([p[0].ravel() for p in jax.tree.leaves(one.params)])
        assert float(jnp.linalg.norm(theirs - ours) / jnp.linalg.norm(ours)) < 1e-3
        np.testing.assert_allclose(many.loss[r], one.loss[0], rtol=1e-4)


def test_a_diverging_trial_leaves_the_others_their_bits(program):
    def run(rate):
        h = hyper([0, 1, 2], [1e-3, rate, 3e-3])
        return advance(program, program.initial(h["seed"]), h, 0, STEPS)

    ordinary, wild = run(1e-3), run(1e3)
    for a, b in zip(jax.tree.leaves(ordinary), jax.tree.leaves(wild), strict=True):
        np.testing.assert_array_equal(a[jnp.array([0, 2])], b[jnp.array([0, 2])])
    assert not np.array_equal(ordinary.loss[1], wild.loss[1])


def test_how_steps_are_dispatched_changes_no_bit(program):
    h = hyper([0, 1], [1e-2, 1e-2])
    whole = advance(program, program.initial(h["seed"]), h, 0, STEPS)
    pieces = program.initial(h["seed"])
    for start, stop in [(0, 1), (1, 4), (4, STEPS)]:
        pieces = advance(program, pieces, h, start, stop)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_learning_rate_of_zero_keeps_every_bit(program):
    h = hyper([0], [0.0])
    before = jax.tree.map(np.asarray, program.initial(h["seed"]).params)
    after = advance(program, program.initial(h["seed"]), h, 0, STEPS).params
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_auxiliary_loss_is_trained_on_but_not_judged():
    """With four memories and two a token, each of two layers adds 2 if even and at most 4."""
    trial = config.Study(TINY).base_trial()
    options = {"rule": "linear", "num_memories": 4, "num_heads": 2}

    def build(balance):
        model = {"mixer": "mom", "mixer_options": options | {"balance": balance}}
        return TrainProgram(trial | {"model": trial["model"] | model})

    h = hyper([0, 1], [1e-2, 1e-3])
    without, program = build(0.0), build(1.0)
    state = program.initial(h["seed"])
    assert not jax.tree.leaves(state.buffers)  # nothing of it is saved
    judged, expected = (p.evaluate(state, tasks.Given(), "test") for p in (program, without))
    for a, b in zip(jax.tree.leaves(judged), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    plain = advance(without, without.initial(h["seed"]), h, 0, 1)
    trained = advance(program, state, h, 0, 1)
    added = np.asarray(trained.loss - plain.loss)
    assert np.all((added > 3.8) & (added < 8))
    routers = [s.params["runs"][0][0]["mixer"]["router"]["kernel"][...] for s in (plain, trained)]
    assert not np.any(np.all(routers[0] == routers[1], axis=(1, 2, 3)))  # of each trial


def test_a_mixture_draws_every_batch_of_every_part_once_an_epoch():
    program = TrainProgram(config.Study(f"{TINY}:mixture").base_trial())
    counts = [5, 4]  # ⌈40/8⌉, ⌈30/8⌉
    assert program.steps_per_epoch == sum(counts)
    drawn = [set(), set()]
    orders = []
    for epoch in range(3):
        start = epoch * program.steps_per_epoch
        drawn_from, part_steps = parts(program, start, start + program.steps_per_epoch)
        drawn_from, part_steps = (x[: program.steps_per_epoch] for x in (drawn_from, part_steps))
        assert np.bincount(drawn_from).tolist() == counts
        orders.append(drawn_from.tolist())
        for part, step in zip(drawn_from, part_steps, strict=True):
            assert step not in drawn[part]
            drawn[part].add(int(step))
    assert [sorted(d) for d in drawn] == [list(range(3 * n)) for n in counts]
    assert orders[0] != orders[1]


def test_parts_do_not_depend_on_where_a_dispatch_starts():
    program = TrainProgram(config.Study(f"{TINY}:mixture").base_trial())
    whole = np.stack(parts(program, 0, 40))[:, :40]
    for start, stop in [(0, 7), (7, 25), (25, 40)]:
        piece = np.stack(parts(program, start, stop))[:, : stop - start]
        np.testing.assert_array_equal(piece, whole[:, start:stop])


def test_evaluation_is_exact_over_any_batch_size():
    trial = config.Study(f"{TINY}:mixture").base_trial()
    totals = []
    for batch_size in (7, 16, 64):
        trial = copy.deepcopy(trial)
        trial["evaluation"]["batch_size"] = batch_size
        program = TrainProgram(trial)
        state = program.initial(np.array([0], np.uint32))
        found = program.evaluate(state, tasks.Given(), "test")
        totals.append([[float(p[m].total[0]), float(p[m].count[0])] for p in found for m in p])
    # Sums of at most 72 losses of about 4 in another order: 72 · 4 · 6e-8 in the worst case.
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-5)
    np.testing.assert_allclose(totals[0], totals[2], rtol=1e-5)
    assert [t[1] for t in totals[0][::2]] == [40 * 2, 30 * 3]


def test_schedules():
    def values(kind, warmup):
        factor = schedule(kind, 100, 25, warmup)
        return np.array([factor(jnp.int32(s)) for s in range(100)])

    np.testing.assert_array_equal(values("constant", 0.0), 1)
    cosine = values("cosine", 0.1)
    np.testing.assert_allclose(cosine[:10], np.arange(1, 11) / 10, rtol=1e-6)
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(90) / 90))
    np.testing.assert_allclose(cosine[10:], expected, atol=1e-6)
    stairs = values("cosine_per_epoch", 0.0)
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    np.testing.assert_allclose(stairs, np.repeat(expected, 25), atol=1e-6)


def test_flops_of_a_scan_count_every_iteration():
    a = jnp.ones((8, 16))
    b = jnp.ones((16, 16))

    def looped(a, b):
        return jax.lax.scan(lambda x, _: (x @ b, None), a, None, length=5)[0]

    assert flops.flops(looped, a, b) == 5 * 2 * 8 * 16 * 16
    assert flops.flops(jnp.dot, a, b) == 2 * 8 * 16 * 16
    assert flops.flops(lambda a: a + a, a) == 8 * 16
    assert flops.flops(jnp.sum, a) == 8 * 16


def test_flops_of_a_step_are_those_of_its_matrix_products():
    """The Zoology cell: projections, scores and logits, thrice (forward and backward)."""
    trial = config.Study(TINY).base_trial()
    trial["model"] |= {"mixer": "attention", "d_model": 64, "embedding_dropout": 0.0}
    trial["task"]["options"] = {"vocab_size": 8192, "length": 64, "num_kv_pairs": 4}
    trial["train"]["batch_size"] = 512
    tokens, d = 512 * 64, 64
    projections = 2 * tokens * 4 * d * d * 2
    scores = 2 * tokens * 64 * d * 2 * 2
    logits = 2 * 512 * 4 * d * 8192
    expected = 3 * (projections + scores + logits)
    measured = TrainProgram(trial).flops_per_step
    assert expected < measured < 1.15 * expected  # the rest: softmax, norms, rotations, data, Adam


def test_without_a_number_it_is_evaluated_after_every_epoch():
    def trial(**changes):
        return config.Study(TINY, {"train.eval_every": "none"} | changes).base_trial()

    assert TrainProgram(trial(**{"train.batch_size": "8"})).eval_every == 7  # of 50 examples
    assert TrainProgram(trial(**{"train.batch_size": "25"})).eval_every == 2


def test_state_holds_what_training_changes(program):
    state = program.initial(np.array([0, 1], np.uint32))
    assert isinstance(state, TrainState)
    assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(state))
    first, second = (jax.tree.map(lambda x, r=r: x[r], state.params) for r in range(2))
    assert not np.array_equal(jax.tree.leaves(first)[0], jax.tree.leaves(second)[0])
