"""Requests: overrides, identity of trials, and every wrong one named before anything compiles."""

import copy
from pathlib import Path

import pytest

from runners import config as c

TINY = str(Path(__file__).parent / "tiny_study.py")


def test_trials_are_the_sweep_resolved():
    trials = c.Study(TINY).trials()
    assert len(trials) == 8
    assert {t["model"]["mixer"] for t in trials} == {"attention", "gla"}
    assert trials[0]["task"]["version"] >= 1
    assert trials[0]["model"]["version"] == {"attention": 1}


def test_override_fixes_a_swept_key():
    trials = c.Study(TINY, {"optimizer.learning_rate": "0.5"}).trials()
    assert len(trials) == 4
    assert {t["optimizer"]["learning_rate"] for t in trials} == {0.5}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "7", 7),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.clip_norm", "none", None),
        ("train.stop_above", "0.5", 0.5),
        ("model.remat", "true", True),
        ("model.mixer_options.num_heads", "2", 2),
        ("task.options.length", "20", 20),
        ("model.mixer", "['attention','gla']", ["attention", "gla"]),
    ],
)
def test_override_reads_text_as_the_type_it_replaces(key, text, value):
    trial = c.Study(TINY, {key: text}).base_trial()
    section, name = trial, key
    while "." in name:
        head, _, name = name.partition(".")
        section = section[head]
    assert section[name] == value
    assert type(section[name]) is type(value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.d_modle": "32"}, ["d_modle", "model.d_model"]),
        ({"modle.d_model": "32"}, ["modle.d_model", "model.d_model"]),
        ({"model.d_model": "wide"}, ["model.d_model", "'wide'", "int"]),
        ({"model.d_model": "1.5"}, ["model.d_model", "1.5", "int"]),
        ({"model": "3"}, ["'model'", "model.d_model"]),
        ({"model.mixer": "atention"}, ["'atention'", "'attention'"]),
        ({"task.name": "mqra"}, ["'mqra'", "'mqar'"]),
        ({"task.options.lenght": "16"}, ["'lenght'", "'length'"]),
        ({"task.options.num_kv_pairs": "5"}, ["num_kv_pairs", "5", "16"]),
        ({"train.batch_size": "0"}, ["train.batch_size", "0", "at least 1"]),
        ({"train.epochs": "2"}, ["train.steps", "train.epochs"]),
        ({"optimizer.learning_rate": "0"}, ["learning_rate", "above 0"]),
        ({"optimizer.schedule": "cosin"}, ["schedule", "'cosin'", "'cosine'"]),
        ({"model.mixer": "no_such_package.file:Mixer"}, ["no_such_package"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_way_out(changes, words):
    with pytest.raises(c.ConfigError) as error:
        c.Study(TINY, changes).trials()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("mqra.py", ["mqra.py", "'mqar.py'"]),
        (f"{TINY}:mixtrue", ["mixtrue", "mixture"]),
    ],
)
def test_a_wrong_file_or_preset_is_named(spec, words):
    with pytest.raises(c.ConfigError) as error:
        c.Study(spec)
    for word in words:
        assert word in str(error.value)


def test_a_broken_study_file_is_named(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module\n")
    with pytest.raises(c.ConfigError, match="no_such_module"):
        c.Study(str(broken))
    broken.write_text("get_config = dict\n")
    with pytest.raises(c.ConfigError, match="sweep"):
        c.Study(str(broken))


def test_id_depends_on_what_changes_numbers_and_on_nothing_else():
    trial = c.Study(TINY).base_trial()
    renamed = copy.deepcopy(trial) | {"study": "other", "preset": "other"}
    assert c.trial_id(renamed) == c.trial_id(trial)
    for key, _ in c.leaves(trial):
        changed = copy.deepcopy(trial)
        *path, name = key.split(".")
        section = changed
        for part in path:
            section = section[part]
        section[name] = "something else"
        same = path == [] and name in ("study", "preset")
        assert (c.trial_id(changed) == c.trial_id(trial)) == same, key


def test_a_population_differs_only_in_seed_learning_rate_and_weight_decay():
    trials = c.Study(TINY).trials()
    assert len({c.population_key(t) for t in trials}) == 2
    other = copy.deepcopy(trials[0])
    other["optimizer"]["weight_decay"] = 0.5
    assert c.population_key(other) == c.population_key(trials[0])
    other["optimizer"]["b1"] = 0.5
    assert c.population_key(other) != c.population_key(trials[0])
