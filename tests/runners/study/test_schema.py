"""The table of keys: against the backbone, and for configurations that are older than a key."""

import inspect
from pathlib import Path

import arch
from runners.core.identity import leaves
from runners.study import config as c
from runners.study import schema

TINY = str(Path(__file__).parents[1] / "tiny_study.py")
OF_THE_TASK = {"vocab_size", "num_features", "max_length", "head", "num_classes"}


def test_the_keys_of_the_model_are_what_the_backbone_takes():
    keys = {key.removeprefix("model.") for key in schema.KEYS if key.startswith("model.")}
    taken = set(inspect.signature(arch.Backbone.__init__).parameters)
    assert keys == taken - OF_THE_TASK - {"self", "rngs"}


def test_a_key_younger_than_the_results_may_be_left_out_and_is():
    trial = c.Study(TINY).base_trial()
    young = {key for key, entry in schema.KEYS.items() if entry.absent is not schema._NEEDED}
    assert young == {"model.dropout", "train.z_loss"}
    assert young & dict(leaves(trial)).keys() == set()
    whole = schema.with_absent_keys(trial)
    assert whole["model"]["dropout"] == 0.0
    assert schema.without_absent_keys(whole) == trial
    assert c.Study(TINY, {"model.dropout": "0.5"}).base_trial()["model"]["dropout"] == 0.5


def test_a_record_of_any_version_has_all_keys_under_their_present_names():
    trial = c.Study(TINY, {"train.stop_at": "0.75"}).base_trial()
    old = trial | {"train": trial["train"] | {"stop_above": 0.75}}
    del old["train"]["stop_at"]
    whole = schema.with_absent_keys(old)
    schema.check(without_versions(whole))
    assert whole == schema.with_absent_keys(trial)


def without_versions(trial):
    named = {section: {**trial[section]} for section in ("model", "task")}
    for section in named.values():
        del section["version"]
    return trial | named
