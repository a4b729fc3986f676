import errno
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from runners.core import provenance, store
from runners.core.errors import ResultsError

ROOT = pathlib.Path(store.__file__).parents[2]


def files(workdir):
    """Names of the finished records."""
    return sorted(p.name for p in (workdir / "trials").glob("[!.]*.json"))


def test_round_trip(tmp_path, make_record):
    record = make_record()
    path = store.write(tmp_path, record)
    assert path == tmp_path / "trials" / "trial-001.json"
    assert store.latest(tmp_path, "trial-001") == record
    assert store.read_all(tmp_path) == [record]
    assert [p.name for p in path.parent.iterdir()] == ["trial-001.json"]  # nothing left over


def test_nothing_was_run(tmp_path):
    assert store.read_all(tmp_path) == []
    assert store.latest(tmp_path / "absent", "x") is None


def test_numbers_become_json(tmp_path, make_record):
    record = make_record(steps=np.int64(7), peak_memory_bytes=float("inf"))
    record["metrics"] |= {"test/loss": float("nan"), "a": jnp.float32(0.5), "b": np.float32(0.25)}
    record["curve"]["train/loss"] = np.array([1.0, np.nan, 2.0])
    text = store.write(tmp_path, record).read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    read = store.latest(tmp_path, record["id"])
    assert read["steps"] == 7
    assert read["peak_memory_bytes"] is None
    assert read["metrics"]["test/loss"] is None
    assert read["metrics"]["a"] == 0.5
    assert read["metrics"]["b"] == 0.25
    assert read["curve"]["train/loss"] == [1.0, None, 2.0]


def test_later_attempts_stand_beside(tmp_path, make_record):
    record = make_record()
    for steps in range(1, 12):
        store.write(tmp_path, record | {"steps": steps})
    assert len(files(tmp_path)) == 11
    first = json.loads((tmp_path / "trials/trial-001.json").read_text())
    assert first["steps"] == 1
    # The number counts, not the order of the names ("11" < "2").
    assert store.latest(tmp_path, "trial-001")["steps"] == 11
    assert [r["steps"] for r in store.read_all(tmp_path)] == [11]


@pytest.mark.parametrize("call", ["fsync", "link"])
@pytest.mark.parametrize("existing", [0, 1])
def test_killed_writer_leaves_whole_records(tmp_path, make_record, monkeypatch, call, existing):
    record = make_record()
    for _ in range(existing):
        store.write(tmp_path, record)
    before = files(tmp_path)

    class Killed(BaseException):
        pass

    def kill(*arguments, **keywords):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, call, kill)
        patch.setattr(os, "unlink", lambda name: None)  # a dead process does not tidy up
        with pytest.raises(Killed):
            store.write(tmp_path, record)
    assert list((tmp_path / "trials").glob(".*.tmp"))  # the leftover is there …
    assert files(tmp_path) == before
    assert len(store.read_all(tmp_path)) == existing  # … and nobody reads it
    store.write(tmp_path, record)
    assert len(files(tmp_path)) == existing + 1


@pytest.mark.parametrize("call", ["write", "fsync", "link", "unlink"])
def test_sigkill(tmp_path, make_record, call):
    record = make_record()
    script = (
        "import builtins, json, os, signal, sys\n"
        "from runners.core import store\n"
        "def kill(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "class Half:\n"
        "  def __init__(self, f): self.f = f\n"
        "  def __enter__(self): return self\n"
        "  def __exit__(self, *a): pass\n"
        "  def write(self, t): self.f.write(t[:50]); self.f.flush(); kill()\n"
        "if sys.argv[2] == 'write': store.open = lambda *a, **k: Half(builtins.open(*a, **k))\n"
        "else: setattr(os, sys.argv[2], kill)\n"
        "store.write(sys.argv[1], json.loads(sys.argv[3]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), call, json.dumps(record)], cwd=ROOT
    )
    assert done.returncode == -signal.SIGKILL
    assert store.read_all(tmp_path) == ([record] if call == "unlink" else [])
    store.write(tmp_path, record)
    assert store.latest(tmp_path, record["id"]) == record


def _write_many(workdir, record, barrier, count):
    barrier.wait()
    for _ in range(count):
        store.write(workdir, record)


@pytest.mark.parametrize("hard_links", [True, False])
def test_concurrent_writers_both_survive(tmp_path, make_record, monkeypatch, hard_links):
    if not hard_links:
        monkeypatch.setattr(os, "link", _no_link)
    record = make_record()
    # fork: the children inherit the patch; they run no JAX computation.
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    arguments = [(tmp_path, record | {"steps": n}, barrier, 20) for n in (1, 2)]
    writers = [context.Process(target=_write_many, args=a) for a in arguments]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX and Python warn of forks beside threads
        for writer in writers:
            writer.start()
    for writer in writers:
        writer.join(60)
    assert [w.exitcode for w in writers] == [0, 0]
    names = ["trial-001.json", *(f"trial-001.{n}.json" for n in range(2, 41))]
    assert files(tmp_path) == sorted(names)
    steps = [json.loads((tmp_path / "trials" / n).read_text())["steps"] for n in names]
    assert sorted(steps) == [1] * 20 + [2] * 20


def _no_link(*arguments):
    raise OSError(errno.EPERM, "Operation not permitted")


def test_without_hard_links(tmp_path, make_record, monkeypatch):
    monkeypatch.setattr(os, "link", _no_link)
    record = make_record()
    store.write(tmp_path, record)
    store.write(tmp_path, record | {"steps": 9})
    # A writer was killed between claiming the third name and taking it.
    (tmp_path / "trials/.trial-001.3.json.claim").touch()
    store.write(tmp_path, record | {"steps": 10})
    assert files(tmp_path) == ["trial-001.2.json", "trial-001.4.json", "trial-001.json"]
    assert store.latest(tmp_path, "trial-001")["steps"] == 10


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda text: text[: len(text) // 2], "not valid JSON"),
        (lambda text: "", "not valid JSON"),
        (lambda text: "\ufffd\udcff", "not valid JSON"),
        (lambda text: text.replace("0.5", "NaN"), "holds NaN"),
        (lambda text: "[]", "expected an object, not list"),
        (lambda text: text.replace('"status": "done"', '"status": "fine"'), "'fine'"),
        (lambda text: text.replace('"status"', '"state"'), "field 'status' is missing"),
        (lambda text: text.replace('"optimizer"', '"adam"'), "'config.optimizer' is missing"),
        (lambda text: text.replace('"seed": 0', '"seed": "0"'), "'config.seed' is '0'"),
        (lambda text: text.replace('"seed": 0', '"seed": true'), "'config.seed' is True"),
        (lambda text: text.replace('"model": {', '"model": 3, "x": {'), "'config.model' is 3"),
        (lambda text: text.replace('"test/loss": 1.0', '"test/loss": "1"'), "'test/loss' is '1'"),
        (lambda text: text.replace("6.0,", ""), "2 values for 3 steps"),
        (lambda text: text.replace("trial-001", "trial-002"), "id is 'trial-002'"),
    ],
)
def test_corrupt_file_is_named(tmp_path, make_record, change, flaw):
    path = store.write(tmp_path, make_record())
    path.write_bytes(change(path.read_text()).encode("utf-8", "surrogateescape"))
    for read in (store.read_all, lambda workdir: store.latest(workdir, "trial-001")):
        with pytest.raises(ResultsError) as caught:
            read(tmp_path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert flaw in message
        assert "move it away and run again" in message
        assert "\n" not in message
    assert issubclass(ResultsError, ValueError)


def test_strange_names(tmp_path, make_record):
    path = store.write(tmp_path, make_record())
    path.with_name("trial-001.json.broken").write_text("moved away")
    assert len(store.read_all(tmp_path)) == 1
    path.with_name("trial-001 (copy).json").write_text(path.read_text())
    with pytest.raises(ResultsError, match=r"\(copy\).json: the name is not <id>.json"):
        store.read_all(tmp_path)


@pytest.mark.parametrize(
    ("fields", "flaw"),
    [
        ({"status": "ok"}, "status is 'ok'"),
        ({"id": "../x"}, "id is '../x'"),
        ({"id": "a.2"}, "id is 'a.2'"),
        ({"steps": "many"}, "field 'steps' is 'many'"),
    ],
)
def test_bad_record_is_refused(tmp_path, make_record, fields, flaw):
    with pytest.raises(ResultsError, match=flaw):
        store.write(tmp_path, make_record() | fields)
    assert not (tmp_path / "trials").exists()


def test_ensure_writable(tmp_path, monkeypatch):
    store.ensure_writable(tmp_path / "new" / "study")
    assert list((tmp_path / "new/study/trials").iterdir()) == []
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ResultsError, match=r"cannot write to '.*file/study'.*--workdir"):
        store.ensure_writable(file / "study")

    def read_only(*arguments, **keywords):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", read_only)
    with pytest.raises(ResultsError, match="Read-only file system; choose another folder"):
        store.ensure_writable(tmp_path)


def test_provenance():
    source = store.provenance()
    assert json.loads(json.dumps(source)) == source
    assert source["device_count"] >= 1
    assert set(source["versions"]) == {"python", "jax", "jaxlib", "flax", "optax", "numpy"}
    assert source["command"].startswith("python ")
    assert source["start_time"].endswith("+00:00")


def test_provenance_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert store.provenance()["git_commit"] is None


def test_provenance_of_a_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert store.provenance()["git_commit"] is None  # not a repository
    git("init", "-q")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-q", "-m", "Add code")
    source = store.provenance()
    assert len(source["git_commit"]) == 40
    assert source["git_dirty"] is False
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a.json").write_text("{}")
    assert store.provenance()["git_dirty"] is False  # what is measured does not change the code
    (tmp_path / "code.py").write_text("2")
    assert store.provenance()["git_dirty"] is True
    # Installed inside a repository that is not this code's own.
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(provenance, "_ROOT", tmp_path / "site-packages")
    assert store.provenance()["git_commit"] is None
