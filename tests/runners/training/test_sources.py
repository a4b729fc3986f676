"""A new source of data touches no file of Seqbench: a packed token stream, sharded by host.

One host trains on it; of two hosts the shares of each batch are compared.
"""

import dataclasses
import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import tasks
from runners.core import identity
from runners.core.reporter import Reporter
from runners.core.run_options import RunOptions
from runners.study import config, forecast
from runners.training.loop import train
from runners.training.program import TrainProgram

TINY = str(Path(__file__).parents[1] / "tiny_study.py")
STEPS = 24


@pytest.fixture
def trial(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    task = {"task.name": "packed_stream:PackedStream", "task.options": {}}
    settings = config.Study(TINY).base_trial()
    settings["task"] = {"name": task["task.name"], "options": {}, "version": 1}
    settings["optimizer"]["learning_rate"] = 0.01
    return settings


def test_a_packed_stream_is_trained_on(trial, tmp_path):
    reporter = Reporter(Console(file=io.StringIO()))
    trials = {identity.trial_id(t): t for t in (trial, trial | {"seed": 1})}
    outcome = train(trials, tmp_path, tmp_path / "runs" / "p", reporter, RunOptions())
    for record in outcome.records:
        assert record["status"] == "done"
        assert record["steps"] == STEPS
        losses = record["curve"]["validation/loss"]
        assert losses[-1] < 0.9 * losses[0]
        assert record["metrics"]["test/loss"] < 0.9 * losses[0]
    assert outcome.records[0]["metrics"] != outcome.records[1]["metrics"]


def test_documents_of_a_row_do_not_see_each_other(trial):
    """The loss on a row's second document does not depend on the first one."""
    trial["model"]["embedding_dropout"] = 0.0
    program = TrainProgram(trial)
    state = program.initial(np.zeros(1, np.uint32))
    params, buffers = (jax.tree.map(lambda x: x[0], s) for s in (state.params, state.buffers))
    second = [7, 8, 9, 10, 11, 12, 13, 0]

    def loss(first, packed):
        batch = program.task.rows_to_batch(jnp.array([[*first, 0, *second]]))
        weights = batch.weights.at[:, : len(first) + 1].set(0)
        segment_ids = batch.segment_ids if packed else None
        batch = dataclasses.replace(batch, weights=weights, segment_ids=segment_ids)
        return float(program.loss(params, buffers, jnp.uint32(0), batch, jnp.int32(0)))

    one, other = [1, 2, 3, 4], [9, 8, 7, 6]
    assert loss(one, packed=True) == loss(other, packed=True)
    assert loss(one, packed=False) != loss(other, packed=False)


def test_what_a_step_of_it_costs_is_known_without_its_data(trial, monkeypatch):
    program = TrainProgram(trial)
    source = type(program.sources["train"])
    monkeypatch.setattr(source, "stream", lambda *_: pytest.fail("read the data"))
    seconds, peak = forecast.step_cost(program)
    assert seconds > 0
    assert peak > 0
    assert program.flops_per_step > 0


def test_two_hosts_read_what_one_reads(trial):
    source = tasks.build(trial["task"]["name"]).source("train")
    keys = jax.random.split(jax.random.key(0), 3)
    whole = list(source.stream(keys, 8, 4, 7, tasks.Shard()))
    halves = [list(source.stream(keys, 8, 4, 7, tasks.Shard(i, 2))) for i in range(2)]
    assert [rows.shape for rows in whole] == [(3, 8, 13)] * 3
    for step, both in zip(whole, zip(*halves, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(both, axis=1), step)
