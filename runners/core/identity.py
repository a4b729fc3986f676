"""Trial and population ids: hashes of the configuration."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from runners.core.hyperparameters import HYPERPARAMETERS

# A trial's identity is everything that can change its numbers: these sections and nothing else.
IDENTITY = ("seed", "model", "task", "optimizer", "train", "evaluation")

# Keys that were renamed within their section, former name to present one. Records keep the names of
# their time; ids hash the former names, so that old and new trials of equal values are the same.
RENAMED = {"train.stop_above": "train.stop_at"}
_FORMER = {present: former for former, present in RENAMED.items()}


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) of a configuration."""
    for key, value in config.items():
        if isinstance(value, (Mapping, ConfigDict)) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def trial_id(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits: a hash of everything that can change the trial's numbers."""
    return _hash(_renamed({key: config[key] for key in IDENTITY}, _FORMER))


def common(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the trials of a population share, by dotted key: all but what is traced.

    A record may lack a section that its version of the code did not have yet.
    """
    present = with_present_names({key: config[key] for key in IDENTITY if key in config})
    traced = {hyperparameter.key for hyperparameter in HYPERPARAMETERS}
    return {key: value for key, value in leaves(present) if key not in traced}


def population_key(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits, equal for trials that one compiled program can train together."""
    return _hash({_FORMER.get(key, key): value for key, value in common(config).items()})


def with_present_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a trial of any version, with its keys as they are called now."""
    return _renamed(config, RENAMED)


def _renamed(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    config = dict(config)
    for old, new in names.items():
        section, _, name = old.partition(".")
        if name in config.get(section, {}):
            values = dict(config[section])
            values[new.rpartition(".")[2]] = values.pop(name)
            config[section] = values
    return config


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
