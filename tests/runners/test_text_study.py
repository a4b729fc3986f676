"""A study of text from end to end: its records and tables, what it refuses, and a resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners import sweep
from runners.core import cli, references
from runners.leaderboard import build
from tasks.text import tokenized

ROOT = Path(__file__).parents[2]
STUDY = str(Path(__file__).parent / "text_study.py")
TIMING = ("compile_seconds", "train_seconds", "examples_per_second", "provenance")


@pytest.fixture(autouse=True)
def corpus(texts, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTS", str(texts))
    monkeypatch.setenv("SEQBENCH_DATA", str(tmp_path / "data"))
    tokenized._find.cache_clear()
    return texts


def call(capsys, workdir, *arguments):
    """Exit code, standard output and standard error of a sweep in this process."""
    tokenized._find.cache_clear()
    with pytest.raises(SystemExit) as end:
        cli.main("sweep", sweep.main, ["--config", STUDY, "--workdir", str(workdir), *arguments])
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def outcomes(workdir):
    files = {}
    for path in sorted((workdir / "trials").glob("*.json")):
        record = json.loads(path.read_text())
        files[path.name] = {k: v for k, v in record.items() if k not in TIMING}
    return files


def test_records_tables_and_references(tmp_path, capsys, corpus):
    workdir = tmp_path / "study"
    code, out, _ = call(capsys, workdir)
    assert code == 0
    (first, second) = outcomes(workdir).values()
    for record in (first, second):
        metrics, curve = record["metrics"], record["curve"]["validation/bits_per_byte"]
        assert curve[-1] < 0.7 * curve[0]
        assert metrics["test/perplexity"] == pytest.approx(2.718281828 ** metrics["test/loss"])
        for name in ("ar_hits", "other", "length=32", "length=128", "position=16", "position=128"):
            assert metrics[f"test/bits_per_byte/{name}"] > 0
        assert record["config"]["task"]["options"]["fingerprint"].startswith("sha256:")
        assert record["status"] == "done"
    assert "5-gram" in out
    assert "uniform" in out
    # The tables need neither the text nor what was made of it.
    before = (workdir / "leaderboard.md").read_text()
    for path in corpus.iterdir():
        path.unlink()
    os.rename(tmp_path / "data", tmp_path / "gone")
    build.build(workdir)
    assert (workdir / "leaderboard.md").read_text() == before
    assert "5-gram" in before
    # And a study whose trials are done says that the text is gone, and loses nothing.
    code, _, error = call(capsys, workdir)
    assert code == 1
    assert "is not here" in error
    assert "Traceback" not in error
    assert len(outcomes(workdir)) == 2


def test_a_killed_sweep_ends_with_the_same_bits(tmp_path, capsys):
    workdir = tmp_path / "undisturbed"
    assert call(capsys, workdir)[0] == 0
    command = [sys.executable, "-m", "runners.sweep", "--config", STUDY]
    command += ["--workdir", str(tmp_path / "killed"), "--checkpoint_seconds", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)

    def steps():
        done = (tmp_path / "killed").glob("runs/*/checkpoints/*/_CHECKPOINT_METADATA")
        return [int(path.parent.name) for path in done if path.parent.name.isdigit()]

    while not any(steps()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not outcomes(tmp_path / "killed")
    code, out, _ = call(capsys, tmp_path / "killed")
    assert code == 0
    assert "resumed at step" in out
    assert outcomes(tmp_path / "killed") == outcomes(workdir)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "bad.txt").write_bytes(b"\xff"), "not UTF-8 at byte 0"),
        (lambda folder: (folder / "bad.jsonl").write_text("{"), "line 1 of"),
        (lambda folder: [p.unlink() for p in sorted(folder.iterdir())[3:]], "too few documents"),
    ],
    ids=["utf8", "json", "few"],
)
def test_bad_text_is_one_line(tmp_path, capsys, corpus, break_it, message):
    break_it(corpus)
    code, out, error = call(capsys, tmp_path / "study")
    assert code == 1
    assert message in " ".join((out + error).split())
    assert "Traceback" not in out + error


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasks.text.store.write", full)
    code, out, error = call(capsys, tmp_path / "study")
    assert code == 1
    assert "No space left on device" in out + error
    assert "Traceback" not in out + error
    monkeypatch.undo()


def test_another_text_under_the_same_name_is_another_trial(tmp_path, capsys, corpus):
    assert call(capsys, tmp_path / "study", "--config.train.steps=1")[0] == 0
    (corpus / "00.txt").write_text("other words")
    code, out, _ = call(capsys, tmp_path / "study", "--config.train.steps=1")
    assert code == 0
    assert "2 to run" in out
    assert len(outcomes(tmp_path / "study")) == 4
    assert len(references.read(tmp_path / "study")) == 2


def test_damaged_references_are_named(tmp_path, capsys):
    assert call(capsys, tmp_path / "study", "--config.train.steps=1")[0] == 0
    (tmp_path / "study" / "reference_scores.json").write_text("{")
    code, _, error = call(capsys, tmp_path / "study", "--config.train.steps=1")
    assert code == 2
    assert "reference_scores.json' is damaged: move it away" in error
