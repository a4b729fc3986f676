"""The language-modelling study: budgets, and the speeds that equal time rests on."""

import json
from pathlib import Path

import pytest

from configs import lm
from runners.core.errors import ConfigError
from runners.core.naming import mixer_name
from runners.study.config import Study

TRIALS = Path(__file__).parents[2] / "results" / "reference" / "lm" / "trials"
PUBLISHED = ("130m", "340m", "1.3b")


@pytest.fixture
def text(tmp_path):
    """Overrides that give a preset a small text in place of its own."""
    for number in range(20):
        text = "".join(f"line {i} of document {number}\n" for i in range(400))
        (tmp_path / f"{number}.txt").write_text(text)
    return {"task.options.corpus": str(tmp_path), "task.options.vocab_size": 300}


def tokens_of(trial):
    length = trial["task"]["options"].get("length", 256)
    return trial["train"]["steps"] * trial["train"]["batch_size"] * length


def test_all_models_have_the_same_tokens():
    for preset in ("laptop", "seeds", "overnight"):
        found = {tokens_of(trial) for trial in Study(f"lm.py:{preset}").trials()}
        assert len(found) == 1


def test_a_budget_of_tokens_fixes_the_steps_at_any_batch_size():
    study = Study("lm.py", {"tokens": "102400", "train.batch_size": "8"})
    assert {trial["train"]["steps"] for trial in study.trials()} == {102_400 // (8 * 256)}


def test_equal_time_gives_each_model_the_steps_of_its_speed():
    trials = Study("lm.py:laptop_time").trials()
    assert len(trials) == len(lm.LAPTOP_SPEED)
    for trial in trials:
        speed = lm.LAPTOP_SPEED[mixer_name(trial["model"]["mixer"])]
        assert tokens_of(trial) == pytest.approx(30 * speed, rel=0.01)


def test_the_speeds_are_those_of_the_committed_trials():
    measured = {}
    for path in TRIALS.glob("*.json"):
        record = json.loads(path.read_text())
        name = mixer_name(record["config"]["model"]["mixer"])
        measured.setdefault(name, []).append(256 * record["examples_per_second"])
    means = {name: sum(values) / len(values) for name, values in measured.items()}
    assert {name: pytest.approx(mean, rel=0.05) for name, mean in means.items()} == lm.LAPTOP_SPEED


def test_hours_without_the_speed_of_a_model_are_refused(text):
    with pytest.raises(ConfigError, match="has no 'attention', expected the speed of every model"):
        Study("lm.py:340m", text | {"accelerator_hours": "2"}).trials()
    speeds = "{'attention': 1e5, 'gla': 5e4, 'deltanet': 2e5}"
    study = Study("lm.py:340m", text | {"accelerator_hours": "2", "tokens_per_second": speeds})
    steps = [round(7200 * speed / (256 * 2048)) for speed in (1e5, 5e4, 2e5)]
    assert [trial["train"]["steps"] for trial in study.trials()] == steps


@pytest.mark.parametrize("tokens", ["0", "-5", "500"])
def test_a_budget_that_buys_no_step_is_refused(tokens):
    with pytest.raises(ConfigError, match="less than one batch of 4 × 256 tokens"):
        Study("lm.py", {"tokens": tokens}).trials()


def test_a_mixer_of_ones_own_is_one_trial():
    (trial,) = Study("lm.py", {"model.mixer": "gru"}).trials()
    assert (trial["model"]["mixer"], trial["model"]["num_layers"]) == ("gru", 2)


def test_one_trial_alone_has_its_budget_too():
    """`runners.train` runs the base trial, without the sweep."""
    trial = Study("lm.py", {"tokens": "102400", "model.mixer": "mamba"}).base_trial()
    assert trial["train"]["steps"] == 100
    assert trial["train"]["eval_every"] == 25
    timed = Study("lm.py:laptop_time", {"model.mixer": "mamba"}).base_trial()
    assert tokens_of(timed) == pytest.approx(30 * lm.LAPTOP_SPEED["mamba"], rel=0.01)
    assert Study("lm.py", {"train.steps": "7"}).base_trial()["train"]["eval_every"] == 2


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_presets_are_whole_studies(preset, text):
    trials = Study(f"lm.py:{preset}", text).trials()
    assert {trial["study"] for trial in trials} == {f"lm_{preset}"}
    assert len({tokens_of(trial) for trial in trials}) == 1
    assert Study(f"lm.py:{preset}", text).base_trial() == trials[0]
    for trial in trials:
        assert trial["task"]["options"]["packing"] == "packed"
        assert trial["model"]["d_model"] >= 768
