"""Overrides: values of keys as text, options of mixers, models by name."""

from pathlib import Path

import pytest

from runners.core.errors import ConfigError
from runners.study import config as c

TINY = str(Path(__file__).parents[1] / "tiny_study.py")


def test_options_of_a_mixer_in_a_pattern():
    changes = {"model.mixer": "[base_conv,gla]", "model.mixer_options.gla.num_heads": "2"}
    trial = c.Study("mqar.py", changes).base_trial()
    assert trial["model"]["mixer_options"] == {"gla": {"num_heads": 2}}


def test_a_published_model_by_name():
    changes = {"model": "gla-340m", "model.num_layers": "2"}
    model = c.Study("mqar.py", changes).base_trial()["model"]
    assert (model["mixer"], model["d_model"], model["norm"]) == ("gla", 1024, "rms")
    assert model["mixer_options"] == {"num_heads": 4}
    assert model["num_layers"] == 2  # an override of its own holds
    assert {t["model"]["mixer"] for t in c.Study("mqar.py", changes).trials()} == {"gla"}
    with pytest.raises(ConfigError, match="did you mean 'gla-340m'"):
        c.Study("mqar.py", {"model": "gla-340M"})


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "7", 7),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.clip_norm", "none", None),
        ("train.stop_at", "0.5", 0.5),
        ("model.remat", "true", True),
        ("model.mixer_options.num_heads", "2", 2),
        ("task.options.length", "20", 20),
        ("model.mixer", "['attention','gla']", ["attention", "gla"]),
        ("model.mixer", "[attention, gla]", ["attention", "gla"]),
        ("model.mixer", "[gla]", ["gla"]),
        ("seed", "4294967295", 2**32 - 1),
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


def test_the_type_of_a_pattern_may_change_and_no_other():
    trial = c.Study(TINY, {"model.mixer": ["attention", "gla"]}).base_trial()
    assert trial["model"]["mixer"] == ["attention", "gla"]
    with pytest.raises(ConfigError, match=r"'model\.norm' is"):
        c.Study(TINY, {"model.norm": ["layer", "rms"]}).base_trial()


def test_a_value_in_place_of_a_section_is_refused_with_the_keys_of_the_section():
    with pytest.raises(ConfigError, match=r"'evaluation' is 5, .*: evaluation.batch_size"):
        c.Study(TINY, {"evaluation": "5"})
    with pytest.raises(ConfigError, match=r"own keys: model.mixer_options.<option>"):
        c.Study(TINY, {"model.mixer_options": "4"})
