"""Few frames stand between the command and the compiled training step."""

import dataclasses
import inspect
from pathlib import Path

import pytest

from runners import sweep
from runners.core import cli
from runners.training.program import TrainProgram

ROOT = Path(__file__).parents[3]
TINY = str(Path(__file__).parents[1] / "tiny_study.py")


def test_at_most_five_frames_of_our_own(tmp_path, monkeypatch, capsys):
    seen, compile_ = [], TrainProgram.compile

    def recorded(self, *args):
        compiled = compile_(self, *args)

        def call(*args):
            own = [f for f in inspect.stack() if Path(f.filename).is_relative_to(ROOT / "runners")]
            seen.append([f"{Path(f.filename).stem}.{f.function}" for f in own])
            return compiled.call(*args)

        return dataclasses.replace(compiled, call=call)

    monkeypatch.setattr(TrainProgram, "compile", recorded)
    one = ["--only", "mixer=gla", "--only", "learning_rate=0.01", "--only", "seed=0"]
    with pytest.raises(SystemExit) as end:
        cli.main("sweep", sweep.main, ["--config", TINY, "--workdir", str(tmp_path), *one])
    assert end.value.code == 0, capsys.readouterr().out
    assert seen[0][::-1] == ["cli.main", "sweep.main", "run.run", "worker.train", "loop.train"]
