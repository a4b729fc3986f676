"""The command from end to end on a small study of text: scores, files, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from runners import sweep
from runners.core import cli, store
from runners.evaluate import __main__ as command
from runners.evaluate import plot, record
from runners.evaluate.cells import Cell
from runners.training import weights
from tasks.text import tokenized

STUDIES = Path(__file__).parents[1]


def call(capsys, *arguments, program=command.run):
    """Exit code, standard output and standard error of a command, in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main("evaluate", program, [str(a) for a in arguments])
    printed = capsys.readouterr()
    return end.value.code, printed.out, printed.err


def refused(capsys, *arguments):
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert err.count("\n") == 1, err
    return err


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two trials of one architecture on a text, with their weights."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "texts").mkdir()
    for i in range(80):
        words = "".join(f"gämma_{i * j} = {j * 37}\n" for j in range(1, 60))
        (folder / "texts" / f"{i}.txt").write_text(words, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTS", str(folder / "texts"))
        patch.setenv("SEQBENCH_DATA", str(folder / "data"))
        tokenized._find.cache_clear()
        arguments = ["--config", str(STUDIES / "text_study.py"), "--workdir", str(folder / "study")]
        with pytest.raises(SystemExit) as end:
            cli.main("sweep", sweep.main, [*arguments, "--keep_weights"])
        assert end.value.code == 0
        yield folder / "study"


@pytest.fixture
def copied(study, tmp_path):
    shutil.copytree(study, tmp_path / "study")
    return tmp_path / "study"


class TestScores:
    def test_they_are_printed_written_and_drawn(self, copied, capsys):
        code, out, err = call(capsys, "--workdir", copied, "--examples", 6)
        assert (code, err) == (0, "")
        assert max(map(len, out.split("\nwrote")[0].splitlines())) <= 80
        for words in (
            "copy: a passage",
            "passkey: the key",
            "phone_book: the number",
            "any answer",
        ):
            assert words in out
        entries = json.loads((copied / "evaluate.json").read_text())
        best = command.trial.best(copied)[0]["id"]
        assert {(e["trial"], e["probe"]) for e in entries} == {
            (best, probe) for probe in ("copy", "passkey", "phone_book")
        }
        for entry in entries:
            assert entry["provenance"]["versions"]["jax"]
            assert entry["settings"]["lengths"] == [64, 128, 256]  # 8 · 32 by doubling
            depths = [0.0, 0.5, 1.0] if entry["probe"] != "copy" else []
            cells = [(c["length"], c["depth"], c["examples"]) for c in entry["cells"]]
            assert cells == [
                (length, depth, 6 if depth is None else 2)
                for length in (64, 128, 256)
                for depth in (None, *depths)
            ]
            for cell in entry["cells"]:
                for value, low, high in cell["scores"].values():
                    assert low <= value <= high
        for name in ("evaluate", "evaluate-depth"):
            assert (copied / f"plots/{name}.png").read_bytes().startswith(b"\x89PNG")

    def test_trials_and_probes_are_chosen(self, copied, capsys):
        trials = [trained["id"] for trained in store.read_all(copied)]
        arguments = ("--lengths", "64", "--examples", 1, "--tasks", "copy")
        named = [word for trial in trials for word in ("--trial", trial[:8])]
        assert call(capsys, "--workdir", copied, *named, *arguments)[0] == 0
        entries = json.loads((copied / "evaluate.json").read_text())
        assert [(e["trial"], e["probe"]) for e in entries] == [(t, "copy") for t in trials]
        assert not (copied / "plots/evaluate-depth.png").exists()

    def test_what_was_measured_is_kept_and_not_measured_again(self, copied, capsys, monkeypatch):
        arguments = ("--workdir", copied, "--lengths", "64", "--examples", 1)
        asked = []

        def measure(model, task, probe, settings, own=command.measure):
            asked.append(probe.about)
            if len(asked) == 2:
                raise KeyboardInterrupt
            return own(model, task, probe, settings)

        monkeypatch.setattr(command, "measure", measure)
        assert call(capsys, *arguments)[0] == 130
        assert len(json.loads((copied / "evaluate.json").read_text())) == 1
        assert call(capsys, *arguments)[0] == 0
        assert len(asked) == 2 + 2
        first = (copied / "evaluate.json").read_bytes()
        assert call(capsys, *arguments)[0] == 0
        assert len(asked) == 2 + 2
        assert (copied / "evaluate.json").read_bytes() == first
        assert call(capsys, *arguments, "--seed", 1)[0] == 0
        assert len(asked) == 2 + 2 + 3
        assert len(json.loads((copied / "evaluate.json").read_text())) == 6

    def test_a_length_that_no_example_has_is_a_dash_and_a_line(self, copied, capsys):
        arguments = ("--lengths", "8,64", "--examples", 1, "--tasks", "passkey")
        code, out, _ = call(capsys, "--workdir", copied, *arguments)
        assert code == 0
        assert "gla at 8: 8 bytes are too few for an example, expected at least 47" in out
        assert any(line.split()[:3] == ["gla", "8", "–"] for line in out.splitlines())
        code, out, _ = call(capsys, "--workdir", copied, *arguments[2:], "--lengths", "8,9")
        assert code == 0
        assert "gla at 8, 9: 8 bytes are too few" in out


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--tasks", "passkeys"), "--tasks 'passkeys': unknown probe"),
            (("--tasks", ""), "--tasks '': unknown probe ''"),
            (("--lengths", "1k"), "--lengths '1k': expected whole numbers of at least 1"),
            (("--lengths", "64,0"), "--lengths '64,0': expected whole numbers of at least 1"),
            (("--depths", "0,1.5"), "--depths '0,1.5': expected numbers from 0 to 1"),
            (("--depths", "nan"), "--depths 'nan': expected numbers from 0 to 1"),
            (("--examples", "0"), "--examples 0: expected at least 1"),
            (("--trial", "nothing"), "--trial 'nothing': no such trial"),
            (("--seed", "x"), "--seed"),
        ],
    )
    def test_impossible_requests(self, study, capsys, arguments, message):
        assert message in refused(capsys, "--workdir", study, *arguments)
        assert not (study / "evaluate.json").exists()

    def test_a_task_without_text(self, tmp_path, capsys):
        only = ("--only", "mixer=gla", "--only", "learning_rate=0.001", "--only", "seed=0")
        arguments = ("--config", STUDIES / "tiny_study.py", "--workdir", tmp_path, *only)
        assert call(capsys, *arguments, "--keep_weights", program=sweep.main)[0] == 0
        assert "the task MQAR has no text" in refused(capsys, "--workdir", tmp_path)

    def test_a_model_that_sees_the_future(self, study, capsys, monkeypatch):
        def load(workdir, trained):
            task, model = own(workdir, trained)
            monkeypatch.setattr(type(model), "causal", False)
            return task, model

        own = weights.load
        monkeypatch.setattr(weights, "load", load)
        assert "sees the future (gla), expected a causal" in refused(capsys, "--workdir", study)

    def test_missing_weights(self, study, tmp_path, capsys):
        shutil.copytree(study / "trials", tmp_path / "trials")
        assert "--keep_weights" in refused(capsys, "--workdir", tmp_path)

    def test_a_damaged_file(self, copied, capsys):
        for content in ("{", "[1]", '[{"trial": "a"}]'):
            (copied / record.NAME).write_text(content)
            assert "is damaged: move it away" in refused(capsys, "--workdir", copied)
            assert (copied / record.NAME).read_text() == content


def test_pictures_of_models_without_scores():
    cells = [Cell(64, None, failure="too long")]
    found = {"passkey": {"gla": record.Entry("a", "passkey", {}, cells, {})}}
    assert plot.against_length(found).startswith(b"\x89PNG")
    assert plot.against_depth(found) is None
