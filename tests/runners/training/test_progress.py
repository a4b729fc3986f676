"""Transitions of a population's progress, without jax: only numbers go in."""

import json

import numpy as np
import pytest

import tasks
from runners.training.progress import CALL_SECONDS, DIVERGED_FACTOR, Progress, Schedule

ACCURACY = tasks.Metric("accuracy")
BITS = tasks.Metric("bits_per_byte", higher_is_better=False)


def started(num_trials=2, **changes):
    settings = {"total_steps": 20, "eval_every": 8, "metric": ACCURACY, "stop_at": None}
    return Progress.start(Schedule(**(settings | changes)), num_trials)


def evaluate(progress, scores, losses=None, sums=None):
    losses = [1.0] * len(scores) if losses is None else losses
    name = progress.schedule.metric.name
    metrics = {"validation/loss": np.float32(losses), f"validation/{name}": np.float32(scores)}
    progress.evaluated(metrics, np.float32([0.0] * len(scores) if sums is None else sums))


def test_it_is_evaluated_before_the_first_step_at_every_eighth_and_at_the_end():
    progress, evaluated_at = started(), []
    while not progress.finished:
        if progress.evaluation_due:
            evaluated_at.append(progress.step)
            evaluate(progress, [0.1, 0.2])
        else:
            progress.advanced(progress.next_stop(3), 1.0)
    assert evaluated_at == [0, 8, 16, 20]
    assert progress.curve["step"] == evaluated_at
    assert progress.step == 20


def test_a_call_takes_about_a_second_and_ends_at_an_evaluation():
    progress = started(total_steps=1000, eval_every=100)
    evaluate(progress, [0.0, 0.0])
    assert progress.next_stop(64) == 1  # nothing is known of the speed
    progress.advanced(1, 0.25 * CALL_SECONDS)
    assert progress.next_stop(64) == 5
    assert progress.next_stop(2) == 3
    progress.advanced(99, 0.0)
    assert progress.next_stop(64) == 100


@pytest.mark.parametrize(
    ("metric", "stop_at", "scores", "solved"),
    [
        (ACCURACY, 0.9, [0.9, 0.8], [True, False]),
        (ACCURACY, None, [1.0, 1.0], [False, False]),
        (BITS, 1.5, [1.6, 1.5], [False, True]),
    ],
)
def test_a_trial_that_reaches_the_target_is_solved(metric, stop_at, scores, solved):
    progress = started(metric=metric, stop_at=stop_at)
    evaluate(progress, scores)
    assert [status == "solved" for status in progress.status] == solved


@pytest.mark.parametrize("loss", [np.nan, np.inf, 1.01 * DIVERGED_FACTOR])
def test_a_loss_that_is_not_finite_or_far_above_the_untrained_models_has_diverged(loss):
    progress = started()
    evaluate(progress, [0.1, 0.1])
    progress.advanced(8, 1.0)
    evaluate(progress, [0.1, 0.1], sums=[8 * loss, 8.0])
    assert progress.status == ["diverged", "active"]
    outcome = progress.outcome(0, {"test/accuracy": np.float32([np.nan, 0.5])})
    assert outcome["status"] == "diverged"
    assert outcome["error"] == "training loss diverged by step 8"
    assert outcome["metrics"]["test/accuracy"] is None
    json.dumps(outcome, allow_nan=False)


def test_a_validation_loss_that_is_not_finite_has_diverged():
    progress = started()
    evaluate(progress, [0.1, 0.1], losses=[np.nan, 1.0])
    assert progress.status == ["diverged", "active"]


def test_active_trials_share_the_time_and_a_stopped_one_keeps_its_curve():
    progress = started(stop_at=0.9)
    evaluate(progress, [0.1, 0.1])
    progress.advanced(8, 2.0)
    evaluate(progress, [0.9, 0.2], sums=[8.0, 8.0])
    progress.advanced(16, 3.0)
    evaluate(progress, [0.5, 0.3], sums=[8.0, 8.0])
    assert progress.share == [1.0, 4.0]
    assert progress.stopped == [8, 16]
    assert progress.seconds == 5.0
    first, second = (progress.outcome(r, {"test/accuracy": np.float32([1, 0])}) for r in range(2))
    assert first["curve"]["step"] == [0, 8]
    assert first["metrics"]["validation/accuracy"] == pytest.approx(0.9)
    assert second["curve"]["step"] == [0, 8, 16]
    assert (first["steps"], second["steps"]) == (8, 16)
    assert (first["metrics"]["test/accuracy"], second["metrics"]["test/accuracy"]) == (1.0, 0.0)


def test_training_ends_when_no_trial_is_active():
    progress = started(stop_at=0.5)
    assert not progress.finished
    evaluate(progress, [0.6, 0.7])
    assert progress.finished


def test_the_training_loss_is_the_mean_since_the_last_evaluation():
    progress = started()
    evaluate(progress, [0.1, 0.1], losses=[4.0, 5.0], sums=[123.0, 123.0])
    progress.advanced(8, 1.0)
    evaluate(progress, [0.1, 0.1], sums=[16.0, 24.0])
    assert progress.curve["train/loss"] == [[4.0, 5.0], [2.0, 3.0]]


@pytest.mark.parametrize(("metric", "best"), [(ACCURACY, "0.200"), (BITS, "0.100")])
def test_words_for_a_person(metric, best):
    progress = started(3, metric=metric)
    evaluate(progress, [0.1, 0.2, 0.15])
    progress.status[2] = "diverged"
    progress.advanced(2, 1.0)
    words = progress.words(np.float32([6.0, 4.0, 0.0]))
    assert words == f"loss 2.000, best {metric.name} {best}, 1 diverged"


def test_a_record_restores_the_progress():
    progress = started()
    evaluate(progress, [0.1, 0.2])
    progress.advanced(3, 0.5)
    record = json.loads(json.dumps(progress.record()))
    assert Progress.restore(progress.schedule, record) == progress
    with pytest.raises(TypeError):
        Progress.restore(progress.schedule, record | {"unknown": 1})
