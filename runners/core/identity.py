"""What makes a trial the one that it is, and what it shares with the others of its population."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from runners.core.hyperparameters import HYPERPARAMETERS

# A trial's identity is everything that can change its numbers: these sections and nothing else.
IDENTITY = ("seed", "model", "task", "optimizer", "train", "evaluation")


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) of a configuration."""
    for key, value in config.items():
        if isinstance(value, (Mapping, ConfigDict)) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def trial_id(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits: a hash of everything that can change the trial's numbers."""
    return _hash({key: config[key] for key in IDENTITY})


def common(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the trials of a population share, by dotted keys: their identity without what is tuned.

    A record may lack a section that its version of the code did not have yet.
    """
    identity = {key: config[key] for key in IDENTITY if key in config}
    traced = {hyperparameter.key for hyperparameter in HYPERPARAMETERS}
    return {key: value for key, value in leaves(identity) if key not in traced}


def population_key(config: Mapping[str, Any]) -> str:
    """Equal for trials that one compiled program can train together."""
    return _hash(common(config))


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
