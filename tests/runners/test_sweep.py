"""The sweep from end to end: what it writes, what it refuses, and what no kill can take from it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners import sweep, train
from runners.core import cli, store

ROOT = Path(__file__).parents[2]
TINY = str(Path(__file__).parent / "tiny_study.py")
TIMING = ("compile_seconds", "train_seconds", "examples_per_second", "provenance")


def command(workdir, *arguments):
    module = [sys.executable, "-m", "runners.sweep"]
    return [*module, "--config", TINY, "--workdir", str(workdir), *arguments]


def start(workdir, *arguments):
    return subprocess.Popen(
        command(workdir, *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def call(capsys, *arguments, program=sweep):
    """Exit code, standard output and standard error of a command, in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main("sweep", program.main, [str(a) for a in arguments])
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def outcomes(workdir):
    """Every trial file without what may differ between two runs of the same sweep."""
    files = {}
    for path in sorted((workdir / "trials").glob("*.json")):
        record = json.loads(path.read_text())
        files[path.name] = {k: v for k, v in record.items() if k not in TIMING}
    return files


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished sweep, and how long it took, with a checkpoint after every dispatch."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    process = start(workdir, "--checkpoint_seconds", "0")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return workdir, output, time.monotonic() - began


def test_a_sweep_writes_its_trials_and_its_leaderboard(undisturbed):
    workdir, output, _ = undisturbed
    records = store.read_all(workdir)
    assert len(records) == 8
    assert {r["status"] for r in records} == {"done"}
    assert (workdir / "leaderboard.md").exists()
    assert (workdir / "leaderboard.csv").exists()
    assert list((workdir / "plots").glob("*.png"))
    assert not list(workdir.glob("runs/*/checkpoints"))
    for words in ("8 trials, 0 done, 8 to run as 2 populations", "attention", "gla", "oracle"):
        assert words in output
    assert "Traceback" not in output
    assert "Warning" not in output


def test_a_record_holds_what_was_measured(undisturbed):
    for record in store.read_all(undisturbed[0]):
        assert record["steps"] == 24
        assert record["curve"]["step"] == [0, 8, 16, 24]
        assert 0 <= record["metrics"]["test/accuracy"] <= 1
        assert record["metrics"]["validation/loss"] == record["curve"]["validation/loss"][-1]
        layers, d = 2, 16
        if record["config"]["model"]["mixer"] == "attention":
            # keys and values of 16 tokens in each layer, and the counters of position
            assert 0 <= record["state_bytes"] - layers * 2 * 16 * d * 4 <= 64 * layers
        assert record["provenance"]["versions"]["jax"]


def test_the_curve_is_also_written_as_it_grows(undisturbed):
    workdir, _, _ = undisturbed
    for path in workdir.glob("runs/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == 4 * 4
        for row in rows:
            record = store.latest(workdir, row["trial"])
            at = record["curve"]["step"].index(row["step"])
            assert record["curve"]["validation/loss"][at] == row["validation/loss"]


def test_a_finished_trial_is_not_run_again(undisturbed, capsys):
    workdir, _, _ = undisturbed
    before = {p.name: p.read_bytes() for p in (workdir / "trials").iterdir()}
    code, out, _ = call(capsys, "--config", TINY, "--workdir", workdir)
    assert code == 0
    assert "8 done, 0 to run" in out
    assert before == {p.name: p.read_bytes() for p in (workdir / "trials").iterdir()}


def test_micro_batches_are_no_part_of_a_trial(undisturbed, tmp_path, capsys):
    """Its id and its cost are those without them, so that it is not run again; the record tells."""
    arguments = ["--config", TINY, "--workdir", tmp_path]
    arguments += ["--only", "mixer=gla", "--only", "seed=0", "--only", "learning_rate=0.01"]
    code, _, _ = call(capsys, *arguments, "--accumulate", "4")
    assert code == 0
    (record,) = store.read_all(tmp_path)
    whole = store.latest(undisturbed[0], record["id"])
    assert (record["accumulate"], whole["accumulate"]) == (4, 1)
    for field in ("config", "flops_per_step", "steps"):
        assert record[field] == whole[field]
    _, out, _ = call(capsys, *arguments)
    assert "1 done, 0 to run" in out


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    code, out, _ = call(capsys, "--config", TINY, "--workdir", tmp_path / "w", "--dry_run")
    assert code == 0
    assert "8 to run as 2 populations" in out
    assert not (tmp_path / "w").exists()


def test_only_selects_by_key_and_value(tmp_path, capsys):
    arguments = ("--config", TINY, "--workdir", tmp_path, "--dry_run")
    _, out, _ = call(capsys, *arguments, "--only", "mixer=gla", "--only", "seed=0,1")
    assert "4 to run as 1 populations" in out
    _, out, _ = call(capsys, *arguments, "--only", "optimizer.learning_rate=0.01")
    assert "4 to run as 2 populations" in out
    _, out, _ = call(capsys, *arguments, "--only", "model.dropout=0.0")  # which records leave out
    assert "8 to run as 2 populations" in out


def kill_and_restart(workdir, moments, capsys):
    """Kills a sweep after each of the moments (seconds from its start), then lets it finish."""
    for moment in moments:
        process = start(workdir, "--checkpoint_seconds", "0")
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(workdir, "--checkpoint_seconds", "0")
    output, _ = process.communicate()
    assert process.returncode == 0, output


def test_a_killed_sweep_ends_with_the_same_bits(undisturbed, tmp_path, capsys):
    workdir, _, seconds = undisturbed
    moments = [random.Random(0).uniform(0.3, 1.0) * seconds for _ in range(2)]
    kill_and_restart(tmp_path, moments, capsys)
    assert outcomes(tmp_path) == outcomes(workdir)


@pytest.mark.slow
def test_ten_kills_end_with_the_same_bits(undisturbed, tmp_path, capsys):
    workdir, _, seconds = undisturbed
    moments = [random.Random(i).uniform(0.1, 1.0) * seconds for i in range(10)]
    kill_and_restart(tmp_path, moments, capsys)
    assert outcomes(tmp_path) == outcomes(workdir)


def test_a_terminated_sweep_keeps_its_work(undisturbed, tmp_path):
    workdir, _, _ = undisturbed
    process = start(tmp_path)
    while not list(tmp_path.glob("runs/*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode in (0, 128 + signal.SIGTERM), output
    assert "Traceback" not in output
    process = start(tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert outcomes(tmp_path) == outcomes(workdir)


def test_two_sweeps_share_a_workdir(undisturbed, tmp_path):
    workdir, _, _ = undisturbed
    processes = [start(tmp_path), start(tmp_path)]
    outputs = [p.communicate()[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert outcomes(tmp_path) == outcomes(workdir)  # a trial run twice would leave <id>.2.json
    trained = sum(output.count("compiled in") for output in outputs)
    assert trained == 2, outputs


def test_a_rerun_stands_beside_the_old_record(undisturbed, tmp_path, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(undisturbed[0], workdir)
    arguments = ("--config", TINY, "--workdir", workdir, "--only", "mixer=attention")
    code, _, _ = call(capsys, *arguments, "--rerun")
    assert code == 0
    names = sorted(p.name for p in (workdir / "trials").glob("*.json"))
    assert len(names) == 12
    assert sum(name.endswith(".2.json") for name in names) == 4
    for old in (n for n in names if n.replace(".json", ".2.json") in names):
        first, second = (
            json.loads((workdir / "trials" / name).read_text())
            for name in (old, old.replace(".json", ".2.json"))
        )
        assert first["metrics"] == second["metrics"]
        assert first["run"] != second["run"]


def test_a_diverging_trial_is_reported_and_the_others_go_on(tmp_path, capsys):
    arguments = ("--config", TINY, "--workdir", tmp_path, "--only", "mixer=attention")
    code, out, _ = call(
        capsys, *arguments, "--config.seed=0", "--config.optimizer.weight_decay=0.0"
    )
    assert code == 0
    study = Path(TINY).read_text().replace("(1e-3, 1e-2)", "(1e-3, 1e3)")
    (tmp_path / "wild.py").write_text(study)
    wild = tmp_path / "wild"
    arguments = ("--config", tmp_path / "wild.py", "--workdir", wild, "--only", "mixer=attention")
    code, out, _ = call(
        capsys, *arguments, "--config.seed=0", "--config.optimizer.weight_decay=0.0"
    )
    assert code == 0
    assert "1 diverged" in out
    ordinary = {r["id"]: r for r in store.read_all(tmp_path)}
    records = store.read_all(wild)
    assert sorted(r["status"] for r in records) == ["diverged", "done"]
    for record in records:
        if record["status"] == "done":
            for key in ("metrics", "curve", "steps"):
                assert record[key] == ordinary[record["id"]][key]
        else:
            assert "diverged" in record["error"]


def test_a_broken_mixer_fails_alone(tmp_path, capsys, monkeypatch):
    (tmp_path / "broken_mixer.py").write_text(
        "import arch\n\n"
        "class Broken(arch.SequenceMixer):\n"
        "    def __init__(self, d_model, *, rngs):\n"
        "        pass\n\n"
        "    def __call__(self, x, context=None):\n"
        "        raise RuntimeError('no such kernel')\n\n"
        "    def initial_state(self, batch_size, max_length):\n"
        "        return {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    study = Path(TINY).read_text().replace('"gla")', '"broken_mixer:Broken")')
    (tmp_path / "study.py").write_text(study)
    arguments = ("--config", tmp_path / "study.py", "--workdir", tmp_path / "w")
    code, out, _ = call(capsys, *arguments)
    assert code == 1
    assert "no such kernel" in out
    records = store.read_all(tmp_path / "w")
    assert sorted(r["status"] for r in records) == ["done"] * 4 + ["failed"] * 4
    assert "no such kernel" in next(r["error"] for r in records if r["status"] == "failed")
    code, out, _ = call(capsys, *arguments)  # failed trials are tried again, the others are not
    assert code == 1
    assert "4 done, 4 to run" in out
    assert len(list((tmp_path / "w" / "trials").glob("*.2.json"))) == 4


def test_train_runs_the_base_trial_alone(tmp_path, capsys):
    arguments = ("--config", TINY, "--workdir", tmp_path, "--config.train.steps=8")
    code, out, _ = call(capsys, *arguments, program=train)
    assert code == 0
    assert "1 trials, 0 done, 1 to run" in out
    assert [r["steps"] for r in store.read_all(tmp_path)] == [8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.model.d_modle=3"], ["model.d_modle", "model.d_model"]),
        (["--config.model.mixer=atention"], ["atention", "attention"]),
        (["--config.model.mixer_options.num_head=2"], ["num_head", "num_heads"]),
        (["--config.model.mixer_options.num_heads=3"], ["num_heads", "3", "16"]),
        (["--config.model.norm=batch"], ["norm", "'batch'", "'layer'"]),
        (["--config.task.name=mqra"], ["mqra", "mqar"]),
        (["--config.task.options.num_kv_pairs=5"], ["num_kv_pairs", "5", "16"]),
        (["--only", "mixer=gal"], ["gal", "gla"]),
        (["--only", "mixr=gla"], ["mixr", "mixer"]),
        (["--only", "gla"], ["KEY=VALUE"]),
        (["--dryrun"], ["--dryrun", "--dry_run"]),
        (["--accumulate=3"], ["--accumulate", "3", "batch_size 8", "2 or 4"]),
        (["--accumulate=0"], ["--accumulate", "0", "at least 1"]),
        (["--workdir", "/dev/null/here"], ["/dev/null/here", "--workdir"]),
        (["--config", "tiny"], ["tiny"]),
        (["--config.seed"], ["--config.seed=VALUE"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(tmp_path, capsys, arguments, words):
    defaults = [] if "--config" in arguments else ["--config", TINY]
    defaults += [] if "--workdir" in arguments else ["--workdir", str(tmp_path)]
    code, _, err = call(capsys, *defaults, *arguments)
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    for word in words:
        assert word in err
    assert not list(tmp_path.glob("trials/*")), "nothing may have run"


def damage(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_trial_file_is_named(undisturbed, tmp_path, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(undisturbed[0], workdir)
    victim = min((workdir / "trials").glob("*.json"))
    damage(victim)
    code, _, err = call(capsys, "--config", TINY, "--workdir", workdir)
    assert code == 2
    assert str(victim) in err
    assert "move it away" in err
    assert len(err.strip().splitlines()) == 1


def test_a_damaged_manifest_is_named(undisturbed, tmp_path, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(undisturbed[0], workdir)
    victim = min(workdir.glob("runs/*/population.json"))
    damage(victim)
    code, _, err = call(capsys, "--config", TINY, "--workdir", workdir)
    assert code == 2
    assert str(victim) in err
    assert len(err.strip().splitlines()) == 1


def test_a_damaged_checkpoint_is_named(tmp_path, capsys):
    process = start(tmp_path, "--checkpoint_seconds", "0")
    while not list(tmp_path.glob("runs/*/checkpoints/8")):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    # A checkpoint that was not finished has more than a number for its name, and is passed over.
    finished = [p for p in tmp_path.glob("runs/*/checkpoints/*") if p.name.isdigit()]
    folder = max(finished, key=lambda p: int(p.name))
    for path in folder.rglob("*"):
        if path.is_file():
            damage(path)
    code, _, err = call(capsys, "--config", TINY, "--workdir", tmp_path)
    assert code == 2
    assert str(folder) in err
    assert len(err.strip().splitlines()) == 1
    shutil.rmtree(folder)  # the way out that the message names
    code, _, err = call(capsys, "--config", TINY, "--workdir", tmp_path)
    assert code == 0, err
