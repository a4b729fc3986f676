"""Studies of stored data: kept or streamed, killed or not, with or without the data."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from runners import sweep
from runners.core import cli, store
from runners.study import config
from runners.training import batches, memory
from runners.training.keys import data_key
from runners.training.mesh import trial_sharding
from runners.training.program import TrainProgram

ROOT = Path(__file__).parents[3]
TINY = str(Path(__file__).parents[1] / "tiny_study.py")
MEASURED = ("metrics", "curve", "status", "steps")
ONE = ("--only", "mixer=gla", "--only", "learning_rate=0.01")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory for data sets, and it alone."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(folder))
        yield folder


def start(workdir, *arguments):
    module = [sys.executable, "-m", "runners.sweep", "--config", f"{TINY}:stored", *ONE]
    return subprocess.Popen(
        [*module, "--workdir", str(workdir), "--checkpoint_seconds", "0", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    return output


def outcomes(workdir):
    """What was measured, by trial."""
    found = {r["id"]: {name: r[name] for name in MEASURED} for r in store.read_all(workdir)}
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    finish(start(workdir))
    return outcomes(workdir)


def test_killed_within_an_epoch_and_then_streamed_it_ends_with_the_same_bits(undisturbed, tmp_path):
    """SIGKILL after the first checkpoint; what follows is read from disk instead of gathered."""
    process = start(tmp_path)
    while not any(path.name.isdecimal() for path in tmp_path.glob("runs/*/checkpoints/[1-9]*")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not store.read_all(tmp_path)
    output = finish(start(tmp_path, "--stream"))
    step = int(output.partition("resumed at step ")[2].split()[0])
    assert step * 8 % 50  # batches of 8, epochs of 50
    assert outcomes(tmp_path) == undisturbed


def test_streamed_rows_are_those_of_the_order(data):
    trial = config.Study(f"{TINY}:stored").base_trial()
    task = tasks.build("lra_listops", **trial["task"]["options"])
    task.prepare()
    seeds, first = np.array([3, 7], np.uint32), 250  # crosses a block of row numbers
    keys = jax.vmap(data_key)(seeds)
    source = task.source("train", resident_bytes=0)
    found = list(source.stream(keys, 8, first, first + 10, tasks.Shard()))
    assert len(found) == 10
    for step, rows in enumerate(found, first):
        for r, seed in enumerate(seeds):
            index = task.train_indices(data_key(seed), jnp.int32(step), 8)
            expected = task.read("train", np.asarray(index))
            for name in expected:
                np.testing.assert_array_equal(rows[name][r], expected[name])


def test_row_numbers_are_no_work_of_the_training_device(data, monkeypatch):
    trial = config.Study(f"{TINY}:stored").base_trial()
    task = tasks.build("lra_listops", **trial["task"]["options"])
    task.prepare()
    host, devices = jax.local_devices(backend="cpu")[0], []
    read = task.train_indices
    monkeypatch.setattr(
        task, "train_indices", lambda *a: devices.append(jax.config.jax_default_device) or read(*a)
    )
    keys = jax.vmap(data_key)(np.zeros(1, np.uint32))
    list(task.source("train", resident_bytes=0).stream(keys, 8, 0, 2, tasks.Shard()))
    assert set(devices) == {host}


def test_every_host_reads_its_share_of_a_batch(data):
    trial = config.Study(f"{TINY}:stored").base_trial()
    task = tasks.build("lra_listops", **trial["task"]["options"])
    task.prepare()
    source, keys = task.source("train", resident_bytes=0), jax.vmap(data_key)(np.arange(2))
    whole = list(source.stream(keys, 8, 0, 4, tasks.Shard()))
    shares = [list(source.stream(keys, 8, 0, 4, tasks.Shard(i, 2))) for i in range(2)]
    for step, *halves in zip(whole, *shares, strict=True):
        for name in step:
            both = np.concatenate([half[name] for half in halves], axis=1)
            np.testing.assert_array_equal(both, step[name])
    with pytest.raises(ValueError, match=r"train\.batch_size is 8, expected a multiple of the 3"):
        source.stream(keys, 8, 0, 4, tasks.Shard(0, 3))


def test_the_memory_of_a_container_counts(monkeypatch, tmp_path):
    assert memory.device_bytes() > 2**20
    limit, without = tmp_path / "memory.max", tmp_path / "other"
    monkeypatch.setattr(memory, "_LIMITS", (limit, without))
    limit.write_text("max\n")
    whole = memory.device_bytes()
    limit.write_text("1048576\n")
    assert memory.device_bytes() == 2**20 < whole


def test_a_call_always_has_one_shape(data, monkeypatch):
    program = TrainProgram(config.Study(f"{TINY}:stored").base_trial(), stream=True)
    program.task.prepare()
    row_bytes = 20 + 4 + 4  # inputs, label, length
    monkeypatch.setattr(batches, "_STREAMED_BYTES", 5 * 2 * 8 * row_bytes)
    source = batches.Batches(program, np.zeros(2, np.uint32), trial_sharding(2), 0, 24)
    assert source.max_steps == 5
    at = [(0, 1), (1, 6), (6, 9)]
    shapes = [jax.tree.map(jnp.shape, source.steps(*where).given.streamed) for where in at]
    assert shapes[0] == shapes[1] == shapes[2]
    assert shapes[0]["inputs"] == (2, 5, 8, 20)


def test_training_rows_stay_on_the_device_while_it_has_room(data, monkeypatch):
    trial = config.Study(f"{TINY}:stored").base_trial()

    def steps():
        program = TrainProgram(trial)
        program.task.prepare()
        source = batches.Batches(program, np.zeros(1, np.uint32), trial_sharding(1), 0, 24)
        assert source.evaluation["test"].resident["label"].shape == (40,)
        return program.task, source.steps(0, 1).given

    task, given = steps()
    assert given.streamed is None
    np.testing.assert_array_equal(given.resident["label"], task.read("train", range(50))["label"])
    train_bytes = 50 * (20 + 4 + 4)
    monkeypatch.setattr(memory, "device_bytes", lambda: 3 * train_bytes)
    _, given = steps()
    assert given.resident is None
    assert given.streamed["label"].shape == (1, 256, 8)


def test_what_lacks_its_data_is_named_and_the_others_run(data, tmp_path, capsys):
    arguments = ["--config", f"{TINY}:partly", "--workdir", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        cli.main("sweep", sweep.main, arguments)
    out = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 1
    done = [record["config"]["task"]["name"] for record in store.read_all(tmp_path)]
    assert done == ["lra_listops"]
    _, _, summary = out.rpartition("Written:")
    for words in ("not run, 1 trials", "lra_retrieval", "new_aan_pairs", str(data), "again"):
        assert words in summary
    assert "Traceback" not in out


def test_without_any_data_there_is_nothing_to_show(data, tmp_path, capsys):
    only = ("--only", "task.name=lra_retrieval")
    arguments = ["--config", f"{TINY}:partly", "--workdir", str(tmp_path), *only]
    with pytest.raises(SystemExit) as end:
        cli.main("sweep", sweep.main, arguments)
    assert end.value.code == 1
    assert not store.read_all(tmp_path)


def test_a_dry_run_needs_no_data(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    arguments = ["--config", f"{TINY}:stored", "--workdir", str(tmp_path / "w"), "--dry_run"]
    with pytest.raises(SystemExit) as end:
        cli.main("sweep", sweep.main, [*arguments, *ONE])
    out = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert not list(tmp_path.iterdir())
    for words in ("examples", " 50 ", "lra_listops, gla: a step of one trial took", "in all"):
        assert words in out


def test_records_leave_out_what_came_later():
    """Trials that were done before there was dropout keep their ids."""
    plain = config.Study(TINY)
    assert "dropout" not in plain.base_trial()["model"]
    with_dropout = config.Study(TINY, {"model.dropout": "0.1"})
    assert with_dropout.base_trial()["model"]["dropout"] == 0.1
    assert config.Study(TINY, {"model.dropout": "0"}).base_trial() == plain.base_trial()
    committed = ROOT / "results" / "reference" / "mqar" / "trials"
    record = json.loads(next(committed.glob("*.json")).read_text())
    trials = [config.trial_id(trial) for trial in config.Study("mqar.py").trials()]
    assert record["id"] in trials


def test_data_that_cannot_be_made_do_not_stop_the_others(data, tmp_path, capsys):
    """There are ten expressions of one token; a hundred are asked for."""
    options = {"max_depth": 1, "length": (1, 1), "num_train_examples": 100}
    arguments = ["--config", f"{TINY}:stored", "--workdir", str(tmp_path), *ONE]
    changes = [f"--config.task.options.{name}={value}" for name, value in options.items()]
    with pytest.raises(SystemExit) as end:
        cli.main("sweep", sweep.main, [*arguments, *changes])
    captured = capsys.readouterr()
    assert end.value.code == 1
    assert "num_examples=(100, 24, 40)" in " ".join(captured.out.split())
    assert "Traceback" not in captured.out + captured.err


def test_a_model_that_cannot_run_does_not_break_a_dry_run(tmp_path, capsys):
    """N-gram heads compare tokens; digits have none."""
    arguments = ["--config", "lra.py:laptop,task=digits,mixer=ngram", "--dry_run"]
    with pytest.raises(SystemExit) as end:
        cli.main("sweep", sweep.main, [*arguments, "--workdir", str(tmp_path / "w")])
    assert end.value.code == 0
    assert "no step can be run" in capsys.readouterr().out
