"""The base configuration, and that studies may do without it."""

import pytest

from configs.base import base
from runners.core.errors import ConfigError
from runners.core.identity import leaves, trial_id
from runners.study import config as c
from runners.study import schema


def test_every_key_stands_once_and_nothing_else():
    keys = [key for key, _ in leaves(base("mine", {}))]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(schema.KEYS)


def test_changes_and_the_studys_own_keys():
    options = {"length": 16, "num_kv_pairs": 4}
    config = base("mine", {"task.options": options, "train.steps": 3}, preset="big")
    assert (config.study, config.preset, config.train.steps) == ("mine", "big", 3)
    config.task.options.length = 32
    assert options["length"] == 16
    assert config.model == base("other", {}).model


def test_two_studies_share_nothing_that_changes():
    base("mine", {}).model.mixer_options["num_heads"] = 4
    assert base("mine", {}).model.mixer_options.to_dict() == {}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("modle.d_model", "unknown key 'modle.d_model': expected one of the sections model, task"),
        ("seed", "unknown key 'seed'"),
        ("train.stpes", "unknown configuration key 'train.stpes': did you mean 'train.steps'"),
        ("train.stop_above", "'train.stop_above' is called 'train.stop_at' now"),
        ("task.options.length", "dots"),
    ],
)
def test_a_wrong_change_is_named(tmp_path, key, words):
    study = tmp_path / "mine.py"
    study.write_text(
        "from configs.base import base\n"
        f"def get_config():\n    return base('mine', {{{key!r}: 1}})\n"
        "def sweep(config):\n    yield {}\n"
    )
    with pytest.raises(ConfigError, match=words):
        c.Study(str(study))


SPELLED_OUT = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({
        "study": "elsewhere",
        "seed": 0,
        "model": {
            "mixer": "gla",
            "mixer_options": {"num_heads": 1},
            "d_model": 32,
            "num_layers": 2,
            "channel_mixer": "none",
            "norm": "layer",
            "position_embedding": False,
            "embedding_dropout": 0.0,
            "compute_dtype": "float32",
            "remat": False,
        },
        "task": {"name": "mqar", "options": {}},
        "optimizer": {
            "learning_rate": 1e-3,
            "ssm_learning_rate": 1e-3,
            "weight_decay": 0.1,
            "b1": 0.9,
            "b2": 0.999,
            "epsilon": 1e-8,
            "schedule": "cosine",
            "warmup_fraction": 0.0,
            "clip_norm": None,
        },
        "train": {
            "batch_size": 32,
            "steps": 1000,
            "epochs": None,
            "eval_every": 100,
            "stop_at": None,
        },
        "evaluation": {"batch_size": 256},
    })

def sweep(config):
    yield {}
"""
SHORT = """
from configs.base import base

def get_config():
    gla = {"model.mixer": "gla", "model.mixer_options": {"num_heads": 1}}
    return base("elsewhere", gla | {"train.steps": 1000})

def sweep(config):
    yield {}
"""


def test_a_study_that_spells_out_all_its_keys_is_the_same(tmp_path):
    trials = []
    for name, text in (("long.py", SPELLED_OUT), ("short.py", SHORT)):
        (tmp_path / name).write_text(text)
        trials += c.Study(str(tmp_path / name)).trials()
    assert trials[0] == trials[1]
    assert trial_id(trials[0]) == "2892dcdfc7ce"
