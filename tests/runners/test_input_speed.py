"""Batches are timed alone and as a part of a step."""

import dataclasses
import time
from pathlib import Path

import jax
import pytest

import tasks
from runners import input_speed
from runners.core import cli
from runners.study import config as c

TINY = str(Path(__file__).parent / "tiny_study.py")


def exit_code(*arguments):
    with pytest.raises(SystemExit) as end:
        cli.main("input_speed", input_speed.main, arguments)
    return end.value.code


def test_a_slow_batch_is_seen(monkeypatch):
    """A batch that waits 2 ms longer costs 2 ms more, alone and in a step."""
    trial = c.Study(TINY, {}).base_trial()
    task = type(tasks.build(trial["task"]["name"], **trial["task"]["options"]))
    draw = task.train_batch

    def slow(self, key, step, batch_size, part):
        def wait(x):
            time.sleep(0.002)
            return x

        batch = draw(self, key, step, batch_size, part)
        shape = jax.ShapeDtypeStruct(batch.inputs.shape, batch.inputs.dtype)
        waited = jax.pure_callback(wait, shape, batch.inputs, vmap_method="sequential")
        return dataclasses.replace(batch, inputs=waited)

    monkeypatch.setattr(task, "train_batch", slow)
    speed = input_speed.measure(trial, rounds=2)
    assert speed.batch_seconds >= 0.002
    assert speed.step_seconds >= 0.002


def test_a_row_for_every_architecture(capsys):
    assert exit_code("--config", TINY, "--only", "mixer=gla") == 0
    printed = capsys.readouterr().out
    assert "examples/s" in printed
    assert "gla" in printed
    assert "attention" not in printed


@pytest.mark.parametrize("argument", ["--config.task.options.length=1", "--only=mixer=nonsense"])
def test_a_wrong_request_ends_with_code_2(argument, capsys):
    assert exit_code("--config", TINY, *argument.split("=", 1)) == 2
    assert capsys.readouterr().err.startswith("input_speed: ")
