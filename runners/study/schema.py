"""The keys of a trial's configuration: every one of them, and what its value may be.

The keys of `model.mixer_options` and `task.options` belong to the architecture and the task, which
check them by themselves. Keys outside the sections are the study's own, for its `sweep`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from runners.core.errors import ConfigError, nearest
from runners.training.optimizer import SCHEDULES

FLOAT32_MAX = float(np.finfo(np.float32).max)
MAX_STEPS = 2**31  # steps are counted in int32


class Rule(NamedTuple):
    """Which values a key takes, as a predicate and in words."""

    allows: Callable[[Any], bool]
    expected: str


def _integer(low: int, below: int = MAX_STEPS) -> Rule:
    power = below.bit_length() - 1
    return Rule(
        lambda v: type(v) is int and low <= v < below,
        f"an integer of at least {low} and below 2**{power}",
    )


def _number(allows: Callable[[float], bool], expected: str) -> Rule:
    return Rule(
        # Also refuses what is not finite in float32, NaN included.
        lambda v: type(v) in (int, float) and abs(v) <= FLOAT32_MAX and allows(v),
        f"a finite number {expected}".rstrip(),
    )


def _optional(rule: Rule, meaning: str = "none") -> Rule:
    return Rule(lambda v: v is None or rule.allows(v), f"{rule.expected}, or {meaning}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


_ABOVE_0 = _number(lambda v: v > 0, "above 0")
_BELOW_1 = _number(lambda v: 0 <= v < 1, "of at least 0 and below 1")
_NAME = Rule(_is_text, "a name")
_FLAG = Rule(lambda v: type(v) is bool, "true or false")
_OPTIONS = Rule(lambda v: isinstance(v, dict), "options by name")
_MIXER = Rule(
    lambda v: _is_text(v) or (isinstance(v, list) and v != [] and all(map(_is_text, v))),
    "the name of an architecture or a list of names, such as [base_conv,attention]",
)

RULES = {
    "study": Rule(_is_text, "the study's name"),
    "seed": _integer(0, below=2**32),
    "model.mixer": _MIXER,
    "model.mixer_options": _OPTIONS,
    "model.d_model": _integer(1),
    "model.num_layers": _integer(1),
    "model.channel_mixer": _NAME,
    "model.norm": _NAME,
    "model.position_embedding": _FLAG,
    "model.embedding_dropout": _BELOW_1,
    "model.dropout": _BELOW_1,
    "model.compute_dtype": _NAME,
    "model.remat": _FLAG,
    "task.name": _NAME,
    "task.options": _OPTIONS,
    "optimizer.learning_rate": _ABOVE_0,
    "optimizer.ssm_learning_rate": _ABOVE_0,
    "optimizer.weight_decay": _number(lambda v: v >= 0, "of at least 0"),
    "optimizer.b1": _BELOW_1,
    "optimizer.b2": _BELOW_1,
    "optimizer.epsilon": _ABOVE_0,
    "optimizer.schedule": Rule(
        lambda v: v in SCHEDULES, f"one of {', '.join(map(repr, SCHEDULES))}"
    ),
    "optimizer.warmup_fraction": _number(lambda v: 0 <= v <= 1, "between 0 and 1"),
    "optimizer.clip_norm": _optional(_ABOVE_0),
    "train.batch_size": _integer(1),
    "train.steps": _optional(_integer(1)),
    "train.epochs": _optional(_ABOVE_0),
    "train.eval_every": _optional(_integer(1), "none: after every epoch"),
    "train.stop_above": _optional(_number(lambda v: True, "")),
    "evaluation.batch_size": _integer(1),
}

# Keys that came after the first results: a configuration may leave them out, and a trial's leaves
# them out where they have these values, so that its id is the one that it always had.
DEFAULTS = {"model.dropout": 0.0}


def fill(config: ConfigDict) -> None:
    """Gives a study's configuration the keys that it leaves out."""
    for key, value in DEFAULTS.items():
        section, _, name = key.partition(".")
        if isinstance(config.get(section), ConfigDict) and name not in config[section]:
            with config.unlocked():
                config[section][name] = value


def without_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's plain configuration as its record holds it."""
    config = {k: dict(v) if isinstance(v, Mapping) else v for k, v in config.items()}
    for key, value in DEFAULTS.items():
        section, _, name = key.partition(".")
        if config[section][name] == value:
            del config[section][name]
    return config


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's plain configuration with all of its keys."""
    config = dict(config)
    for key, value in DEFAULTS.items():
        section, _, name = key.partition(".")
        config[section] = {name: value} | config[section]
    return config


def check_keys(config: Mapping[str, Any] | ConfigDict) -> None:
    """Raises ConfigError if a section or a key is missing, or a section has an unknown one."""
    sections: dict[str, list[str]] = {}
    for key in RULES:
        section, dot, _ = key.partition(".")
        sections.setdefault(section if dot else "", []).append(key)
    for section, known in sections.items():
        values = config.get(section) if section else config
        names = ", ".join(key.rpartition(".")[2] for key in known)
        if not isinstance(values, (Mapping, ConfigDict)):
            flaw = "missing" if values is None else repr(values)
            raise ConfigError(f"section {section!r} is {flaw}, expected one with the keys {names}")
        prefix = f"{section}." if section else ""
        given = [f"{prefix}{name}" for name in values]
        for key in given if section else ():
            if key not in known:
                raise ConfigError(f"unknown configuration key {key!r}: {nearest(key, known)}")
        for key in known:
            if key not in given:
                raise ConfigError(f"key {key!r} is missing, expected {RULES[key].expected}")


def check_value(key: str, value: Any) -> None:
    """Raises ConfigError if a key cannot have this value."""
    if not RULES[key].allows(value):
        raise ConfigError(f"{key} is {value!r}, expected {RULES[key].expected}")


def check(config: Mapping[str, Any]) -> None:
    """Raises ConfigError unless a plain configuration has exactly the keys above, in range."""
    check_keys(config)
    for key in RULES:
        section, dot, name = key.rpartition(".")
        check_value(key, config[section][name] if dot else config[name])
    if (config["train"]["steps"] is None) == (config["train"]["epochs"] is None):
        raise ConfigError(
            "expected exactly one of train.steps and train.epochs; set the other to none"
        )
