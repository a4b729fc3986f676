"""Times of another library's kernels: what can be said without its GPU."""

import json
import subprocess

import pytest

from runners.benchmark import fla


def test_says_why_there_are_no_times():
    if fla.obstacle() is None:
        pytest.skip("there are times to be had here")
    with pytest.raises(
        RuntimeError, match=r"runners.benchmark.fla: flash-linear-attention needs .+"
    ):
        fla.fla_times([(1, 2, 1, 16, 16)])


@pytest.mark.parametrize("missing", ["torch", "fla"])
def test_names_what_to_install(missing, monkeypatch):
    def find(name):
        return None if name == missing else object()

    monkeypatch.setattr(fla.importlib.util, "find_spec", find)
    package = {"torch": "torch", "fla": "fla-core"}[missing]
    assert fla.obstacle().endswith(f"pip install {package}")


@pytest.mark.parametrize("sizes", [["8", "4096"], ["8", "4096", "16", "64", "wide"]])
def test_refuses_bad_sizes(sizes, capsys):
    with pytest.raises(SystemExit):
        fla.main(["--sizes", *sizes])
    assert "argument --sizes" in capsys.readouterr().err


def test_prints_a_row_for_every_kernel_and_size(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(fla, "obstacle", lambda: None)
    monkeypatch.setattr(fla, "_measure", lambda *args: asked.append(args) or [{"seconds": 1.0}])
    one, two = [8, 4096, 16, 128, 128], [1, 2, 3, 4, 5]
    fla.main([text for sizes in (one, two) for text in ("--sizes", *map(str, sizes))])
    assert asked == [(name, sizes) for name in fla.OPERATORS for sizes in (one, two)]
    assert json.loads(capsys.readouterr().out) == [{"seconds": 1.0}] * 6


def test_reads_the_rows_below_other_output(monkeypatch):
    def run(command, **options):
        assert command[-6:] == ["--sizes", "8", "4096", "16", "64", "64"]
        return subprocess.CompletedProcess(command, 0, 'tuning...\n[{"seconds": 2.0}]\n', "")

    monkeypatch.setattr(fla.subprocess, "run", run)
    assert fla.fla_times() == [{"seconds": 2.0}]
