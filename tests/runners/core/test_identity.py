"""Ids: what they depend on, and that they outlive the renaming of a key."""

import copy
from pathlib import Path

from runners.core import identity, naming
from runners.study import config as c

TINY = str(Path(__file__).parents[1] / "tiny_study.py")


def test_id_depends_on_what_changes_numbers_and_on_nothing_else():
    trial = c.Study(TINY).base_trial()
    renamed = copy.deepcopy(trial) | {"study": "other", "preset": "other"}
    assert identity.trial_id(renamed) == identity.trial_id(trial)
    for key, _ in identity.leaves(trial):
        changed = copy.deepcopy(trial)
        *path, name = key.split(".")
        section = changed
        for part in path:
            section = section[part]
        section[name] = "something else"
        same = path == [] and name in ("study", "preset")
        assert (identity.trial_id(changed) == identity.trial_id(trial)) == same, key


def test_a_population_differs_only_in_seed_learning_rate_and_weight_decay():
    trials = c.Study(TINY).trials()
    assert len({identity.population_key(t) for t in trials}) == 2
    other = copy.deepcopy(trials[0])
    other["optimizer"]["weight_decay"] = 0.5
    assert identity.population_key(other) == identity.population_key(trials[0])
    other["optimizer"]["b1"] = 0.5
    assert identity.population_key(other) != identity.population_key(trials[0])


def formerly(trial):
    """The trial as a record from before `train.stop_at` had its name."""
    trial = copy.deepcopy(trial)
    trial["train"]["stop_above"] = trial["train"].pop("stop_at")
    return trial


def test_a_renamed_key_changes_no_id():
    trial = c.Study(TINY, {"train.stop_at": "0.75"}).base_trial()
    old = formerly(trial)
    # The very bytes that the first version hashed.
    assert identity.trial_id(old) == identity._hash({k: old[k] for k in identity.IDENTITY})
    assert identity.trial_id(trial) == identity.trial_id(old)
    assert identity.common(trial) == identity.common(old)
    assert identity.common(old)["train.stop_at"] == 0.75
    assert identity.population_key(trial) == identity.population_key(old)
    assert identity.with_present_names(old) == identity.with_present_names(trial) == trial
    assert "stop_above" in old["train"]  # records are never changed


def test_old_and_new_records_share_a_row_and_its_name():
    old, new = (c.Study(TINY, {"train.stop_at": value}).base_trial() for value in ("none", "0.75"))
    names = naming.of_architectures([formerly(old), new])
    assert sorted(names.values()) == ["attention stop_at=0.75", "attention stop_at=null"]
