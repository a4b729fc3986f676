"""Kept weights are those that were measured; the probe finds n-gram heads."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch
import tasks
from runners import sweep
from runners.core import cli, store
from runners.core.errors import ResultsError
from runners.probe import __main__ as command
from runners.probe import heads
from runners.training import weights

TINY = str(Path(__file__).parents[1] / "tiny_study.py")


def exit_code(program, function, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(program, function, [str(a) for a in arguments])
    return end.value.code


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smallest sweep, with its weights."""
    workdir = tmp_path_factory.mktemp("study")
    arguments = ("--config", TINY, "--workdir", workdir, "--only", "mixer=gla", "--keep_weights")
    assert exit_code("sweep", sweep.main, *arguments) == 0
    return workdir


def test_kept_weights_score_what_was_recorded(study):
    for record in store.read_all(study):
        task, model = weights.load(study, record)
        (part,) = task.parts("test")
        batch = task.eval_batch(0, part.num_examples, "test")
        metrics = task.metrics(model(batch.inputs, batch.loss_positions), batch)
        expected = record["metrics"]
        assert float(metrics["accuracy"].value) == expected["test/accuracy"]
        # A mean of 80 numbers, in batches of another size.
        np.testing.assert_allclose(metrics["loss"].value, expected["test/loss"], rtol=1e-5)


def test_a_study_is_probed(study, capsys):
    assert exit_code("probe", command.run, "--workdir", study) == 0
    printed = capsys.readouterr().out
    assert "1-gram (uniform)" in printed
    assert "plots/probe-heads.png" in printed.replace("\n", "")
    found = json.loads((study / "probe.json").read_text())
    row = store.read_all(study)[0]["config"]["model"]
    assert {head["layer"] for head in found} == set(range(1, row["num_layers"] + 1))
    for head in found:
        assert head["mixer"] == head["model"] == "gla"
        assert all(0 <= share <= 1 for share in head["weight"] + head["uniform"])
    for name in ("probe.png", "probe-heads.png"):
        assert (study / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_weights_of_done_trials_are_not_promised(study, tmp_path, capsys):
    shutil.copytree(study / "trials", tmp_path / "trials")
    arguments = ("--config", TINY, "--workdir", tmp_path, "--only", "mixer=gla", "--keep_weights")
    assert exit_code("sweep", sweep.main, *arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "4 trials are done and their weights were not kept: --rerun trains them" in printed


def test_without_weights_it_says_how_to_get_them(study, tmp_path, capsys):
    shutil.copytree(study / "trials", tmp_path / "trials")
    assert exit_code("probe", command.run, "--workdir", tmp_path) == 2
    assert "--keep_weights" in capsys.readouterr().err


def test_damaged_weights_are_named(study, tmp_path):
    shutil.copytree(study, tmp_path / "copy")
    record = store.read_all(study)[0]
    folder = tmp_path / "copy" / "weights" / record["id"]
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(ResultsError, match=record["id"]):
        weights.load(tmp_path / "copy", record)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_followers_equal_a_search(n):
    tokens = np.random.default_rng(n).integers(0, 3, 40)
    found = np.asarray(heads.followers(jnp.asarray(tokens), n))
    text = "".join(map(str, tokens))
    for t in range(40):
        gram = text[t + 1 - n : t + 1] if t + 1 >= n else None
        expected = [s for s in range(n, t) if text[s - n : s] == gram]
        assert np.flatnonzero(found[t]).tolist() == expected


def test_an_ngram_head_has_all_the_weight():
    """A model of one layer of n-gram heads of order 2 against one that looks everywhere alike."""
    task = tasks.build(
        "icll",
        num_symbols=7,
        states=(4, 6),
        symbols=(4, 7),
        edges=(1, 2),
        words=(4, 4),
        word_length=(1, 7),
    )
    config = {"mixer": "ngram", "num_layers": 1, "mixer_options": {"orders": (2,)}}
    model = arch.Backbone(
        "ngram",
        8,
        num_layers=1,
        vocab_size=8,
        max_length=32,
        mixer_options=config["mixer_options"],
        rngs=nnx.Rngs(0),
    )
    (head,) = heads.probe(model, task, {"model": config}, "ngram")
    assert head.weight[1] == pytest.approx(1, abs=1e-6)
    assert head.uniform[1] < 0.5
    # What comes after the last judged token is filler, and not shown.
    judged = int(task.eval_batch(0, 1, "test").weights[0].nonzero()[0][-1]) + 1
    assert len(head.tokens) == judged
    assert head.example.shape == (judged, judged)
    everywhere = jnp.tril(jnp.ones((32, 32)), -1)
    tokens, counted = task.eval_batch(0, 1, "test").inputs[0], jnp.ones(32, bool)
    weight, uniform, rows = heads.shares(heads.normalised(everywhere), tokens, counted)
    np.testing.assert_allclose(weight, uniform, rtol=1e-5)
    assert jnp.all(rows > 0)
