"""The commands from end to end: text, what they refuse, speed; and a trial's model as files."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import arch
from runners import export, sweep
from runners.core import cli, store
from runners.generate import __main__ as command
from runners.generate import plot
from runners.generate.speed import Speed
from runners.training import weights

STUDY = str(Path(__file__).parent / "text_study.py")
TINY = str(Path(__file__).parents[1] / "tiny_study.py")


def exit_code(program, function, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(program, function, [str(a) for a in arguments])
    return end.value.code


def call(capsys, *arguments, program=command.run):
    """Exit code, standard output and standard error of a command, in this process."""
    capsys.readouterr()
    code = exit_code("generate", program, *arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def refused(capsys, *arguments, program=command.run):
    code, out, err = call(capsys, *arguments, program=program)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    return err


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Models that know one sentence by heart, with their weights."""
    workdir = tmp_path_factory.mktemp("sentence")
    arguments = ("--config", STUDY, "--workdir", workdir, "--keep_weights")
    assert exit_code("sweep", sweep.main, *arguments) == 0
    return workdir


@pytest.fixture(scope="module")
def recall(tmp_path_factory):
    """A study of a task without text."""
    workdir = tmp_path_factory.mktemp("recall")
    only = ("--only", "mixer=gla", "--only", "learning_rate=0.001", "--only", "seed=0")
    arguments = ("--config", TINY, "--workdir", workdir, *only, "--keep_weights")
    assert exit_code("sweep", sweep.main, *arguments) == 0
    return workdir


class TestText:
    def test_a_model_continues_what_it_knows(self, study, capsys):
        prompt = ("--prompt", "Ein B", "--temperature", 0, "--num_tokens", 30)
        code, out, err = call(capsys, "--workdir", study, *prompt)
        assert (code, err) == (0, "")
        assert out == "Ein Bär, zwei Bären — drei. Ein\n"

    def test_it_ends_before_the_stop_text(self, study, capsys):
        prompt = ("--prompt", "Ein B", "--temperature", 0, "--stop", "eren —", "--stop", "en —")
        assert call(capsys, "--workdir", study, *prompt)[1] == "Ein Bär, zwei Bär\n"

    def test_the_prompt_comes_from_standard_input(self, study, capsys, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("zwei Bä".encode())))
        prompt = ("--prompt", "-", "--temperature", 0, "--num_tokens", 3)
        assert call(capsys, "--workdir", study, *prompt)[1] == "zwei Bären\n"

    def test_several_texts_stand_in_order(self, study, capsys):
        prompts = ("--prompt", "Ein B", "--prompt", "dr", "--batch", 2)
        _, out, _ = call(capsys, "--workdir", study, *prompts, "--top_k", 1, "--num_tokens", 3)
        assert out == (
            "── prompt 1, sample 1\nEin Bär\n── prompt 1, sample 2\nEin Bär\n"
            "── prompt 2, sample 1\ndrei.\n── prompt 2, sample 2\ndrei.\n"
        )

    def test_the_seed_decides(self, study, capsys):
        draw = ("--workdir", study, "--prompt", "Ein", "--temperature", 3.0)
        first = call(capsys, *draw, "--seed", 1)[1]
        assert first == call(capsys, *draw, "--seed", 1)[1]
        assert first != call(capsys, *draw, "--seed", 2)[1]

    def test_it_comes_as_it_is_made(self, study, monkeypatch):
        """Long before the last token, the first ones have been written and flushed."""
        events = []

        class Terminal(io.StringIO):
            def write(self, text):
                events.append(text)

            def flush(self):
                events.append(None)

        monkeypatch.setattr(sys, "stdout", Terminal())
        draw = ("--workdir", study, "--prompt", "Ein", "--temperature", 0, "--num_tokens", 64)
        assert exit_code("generate", command.run, *draw) == 0
        pieces = "".join(text if text is not None else "|" for text in events).split("|")
        assert len([piece for piece in pieces if piece.strip()]) >= 4

    def test_a_trial_is_named_by_its_beginning(self, study, capsys):
        for record in store.read_all(study):
            name = ("--trial", record["id"][:6], "--prompt", "Ein", "--num_tokens", 1)
            assert call(capsys, "--workdir", study, *name)[0] == 0

    def test_without_name_the_best_trial_with_weights_speaks(self, study, tmp_path, capsys):
        best = command.trial.best(study)
        scores = [record["metrics"]["validation/accuracy"] for record in best]
        assert len(best) == 2
        assert scores[0] >= scores[1]
        shutil.copytree(study, tmp_path / "copy")
        shutil.rmtree(tmp_path / "copy" / "weights" / best[0]["id"])
        (second,) = command.trial.best(tmp_path / "copy")
        assert second["id"] == best[1]["id"]


class TestRefusals:
    def test_a_task_without_text(self, recall, capsys):
        assert "the task MQAR has no text" in refused(capsys, "--workdir", recall, "--prompt", "x")

    def test_missing_weights(self, study, tmp_path, capsys):
        shutil.copytree(study / "trials", tmp_path / "trials")
        named = ("--prompt", "x", "--trial", store.read_all(study)[0]["id"])
        assert "--keep_weights" in refused(capsys, "--workdir", tmp_path, "--prompt", "x")
        assert "--keep_weights" in refused(capsys, "--workdir", tmp_path, *named)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "expected --prompt TEXT"),
            (("--prompt", "x", "--trial", "nothing"), "--trial 'nothing': no such trial"),
            (("--prompt", "x", "--trial", ""), "--trial '': no such trial"),
            (("--prompt", "x", "--trial", "a", "--trial", "b"), "expected one for a text"),
            (("--prompt", "x", "--temperature", "-1"), "--temperature is -1.0, expected"),
            (("--prompt", "x", "--top_k", "0"), "--top_k is 0, expected at least 1"),
            (("--prompt", "x", "--top_p", "2"), "--top_p is 2.0, expected"),
            (("--prompt", "x", "--num_tokens", "0"), "--num_tokens 0: expected at least 1"),
            (("--prompt", "x", "--batch", "0"), "--batch 0: expected at least 1"),
            (("--benchmark", "--contexts", "1k"), "--contexts '1k': expected whole numbers"),
        ],
    )
    def test_impossible_requests(self, study, capsys, arguments, message):
        assert message in refused(capsys, "--workdir", study, *arguments)

    def test_an_id_that_is_not_unique(self, study, tmp_path, capsys):
        record = store.read_all(study)[0]
        for end in "ab":
            store.write(tmp_path, record | {"id": f"12345{end}"})
        message = refused(capsys, "--workdir", tmp_path, "--prompt", "x", "--trial", "123")
        assert "begins the ids of 2 trials: 12345a, 12345b" in message

    def test_a_folder_without_trials(self, tmp_path, capsys):
        assert "no trials in" in refused(
            capsys, "--workdir", tmp_path, "--prompt", "x", "--trial", "1"
        )


class TestBenchmark:
    def test_speed_is_measured_written_and_drawn(self, study, recall, capsys):
        for workdir, models in ((study, {"gla", "attention"}), (recall, {"gla"})):
            arguments = ("--workdir", workdir, "--benchmark", "--contexts", "48,16")
            code, out, err = call(capsys, *arguments)
            assert (code, err) == (0, "")
            assert "ms/token" in out
            record = json.loads((workdir / "generate.json").read_text())
            assert {row["model"] for row in record["rows"]} == models
            assert [row["context"] for row in record["rows"]] == [16, 48] * len(models)
            for row in record["rows"]:
                assert row["prefill"] > 0
                assert set(row["token_seconds"]) == {"1", "32"}
            assert record["device"]
            assert (workdir / "plots/generate.png").read_bytes().startswith(b"\x89PNG")

    def test_a_context_that_a_model_cannot_have_is_left_out(self):
        rows = [
            Speed("gla", "a", 16, 1e5, {1: 1e-4, 32: 1e-3}),
            Speed("gla", "a", 32, failure="too long"),
        ]
        assert plot.speeds(rows).startswith(b"\x89PNG")


class TestExport:
    def test_the_model_says_the_same_to_the_bit(self, study, capsys):
        for record in store.read_all(study):
            arguments = ("--workdir", study, "--trial", record["id"][:8])
            code, out, err = call(capsys, *arguments, program=export.main)
            assert (code, err) == (0, "")
            folder = study / "models" / record["id"]
            assert str(folder) in out.replace("\n", "")
            _, model = weights.load(study, record)
            tokens = np.arange(20)[None]
            np.testing.assert_array_equal(arch.load(folder)(tokens), model(tokens))
            about = json.loads((folder / "config.json").read_text())["about"]
            assert about["trial"] == record["id"]
            assert about["task"]["name"] == "text_study:Sentence"
            assert about["provenance"] == record["provenance"]

    def test_the_best_goes_where_it_is_asked_to(self, study, tmp_path, capsys):
        arguments = ("--workdir", study, "--output", tmp_path / "model")
        assert call(capsys, *arguments, program=export.main)[0] == 0
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        assert config["about"]["trial"] == command.trial.best(study)[0]["id"]
        message = refused(capsys, *arguments, program=export.main)
        assert "exists: choose another folder" in message

    def test_missing_weights(self, study, tmp_path, capsys):
        shutil.copytree(study / "trials", tmp_path / "trials")
        assert "--keep_weights" in refused(capsys, "--workdir", tmp_path, program=export.main)
