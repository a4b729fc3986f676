"""Table of a trial's configuration keys: the values that each takes.

A new key is a line in `KEYS` with `absent`, the value that older trials meant, its default in
`configs/base.py`, and its use; `arch.Backbone` gets every key of `model`. The keys of
`model.mixer_options` and `task.options` belong to the architecture and the task, which check them.
Keys outside the sections are the study's own, for its `sweep`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from runners.core.errors import ConfigError, nearest
from runners.core.identity import RENAMED, with_present_names
from runners.training.optimizer import SCHEDULES

_FLOAT32_MAX = float(np.finfo(np.float32).max)
MAX_STEPS = 2**31  # steps are counted in int32


class _Rule(NamedTuple):
    """The values that a key takes, as a predicate and in words."""

    allows: Callable[[Any], bool]
    expected: str


def _integer(low: int, below: int = MAX_STEPS) -> _Rule:
    power = below.bit_length() - 1
    return _Rule(
        lambda v: type(v) is int and low <= v < below,
        f"an integer of at least {low} and below 2**{power}",
    )


def _number(allows: Callable[[float], bool], expected: str) -> _Rule:
    return _Rule(
        # Also refuses what is not finite in float32, NaN included.
        lambda v: type(v) in (int, float) and abs(v) <= _FLOAT32_MAX and allows(v),
        f"a finite number {expected}".rstrip(),
    )


def _optional(rule: _Rule, meaning: str = "none") -> _Rule:
    return _Rule(lambda v: v is None or rule.allows(v), f"{rule.expected}, or {meaning}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


_ABOVE_0 = _number(lambda v: v > 0, "above 0")
_BELOW_1 = _number(lambda v: 0 <= v < 1, "of at least 0 and below 1")
_NAME = _Rule(_is_text, "a name")
_FLAG = _Rule(lambda v: type(v) is bool, "true or false")
_OPTIONS = _Rule(lambda v: isinstance(v, dict), "options by name")
_MIXER = _Rule(
    lambda v: _is_text(v) or (isinstance(v, list) and v != [] and all(map(_is_text, v))),
    "the name of an architecture or a list of names, such as [base_conv,attention]",
)

_STUDY = _Rule(_is_text, "the study's name")
_SCHEDULE = _Rule(lambda v: v in SCHEDULES, f"one of {', '.join(map(repr, SCHEDULES))}")
_NEEDED = object()


class _Key(NamedTuple):
    """A key of every trial's configuration.

    Attributes:
      rule: the values it takes.
      absent: for a key younger than the first results, the value that a configuration without it
        means. Records leave the key out where it has this value, so that the ids of old trials
        stay; a study may leave it out, too. It is no default, and never changes.
    """

    rule: _Rule
    absent: Any = _NEEDED


KEYS = {
    "study": _Key(_STUDY),
    "seed": _Key(_integer(0, below=2**32)),
    "model.mixer": _Key(_MIXER),
    "model.mixer_options": _Key(_OPTIONS),
    "model.d_model": _Key(_integer(1)),
    "model.num_layers": _Key(_integer(1)),
    "model.channel_mixer": _Key(_NAME),
    "model.norm": _Key(_NAME),
    "model.position_embedding": _Key(_FLAG),
    "model.embedding_dropout": _Key(_BELOW_1),
    "model.dropout": _Key(_BELOW_1, absent=0.0),
    "model.compute_dtype": _Key(_NAME),
    "model.remat": _Key(_FLAG),
    "task.name": _Key(_NAME),
    "task.options": _Key(_OPTIONS),
    "optimizer.learning_rate": _Key(_ABOVE_0),
    "optimizer.ssm_learning_rate": _Key(_ABOVE_0),
    "optimizer.weight_decay": _Key(_number(lambda v: v >= 0, "of at least 0")),
    "optimizer.b1": _Key(_BELOW_1),
    "optimizer.b2": _Key(_BELOW_1),
    "optimizer.epsilon": _Key(_ABOVE_0),
    "optimizer.schedule": _Key(_SCHEDULE),
    "optimizer.warmup_fraction": _Key(_number(lambda v: 0 <= v <= 1, "between 0 and 1")),
    "optimizer.clip_norm": _Key(_optional(_ABOVE_0)),
    "train.batch_size": _Key(_integer(1)),
    "train.steps": _Key(_optional(_integer(1))),
    "train.epochs": _Key(_optional(_ABOVE_0)),
    "train.eval_every": _Key(_optional(_integer(1), "none: after every epoch")),
    "train.stop_at": _Key(_optional(_number(lambda v: True, ""))),
    "train.z_loss": _Key(_number(lambda v: v >= 0, "of at least 0"), absent=0.0),
    "evaluation.batch_size": _Key(_integer(1)),
}
# (section, name, value) of the keys that may be absent.
_ABSENT = tuple(
    (*key.split("."), entry.absent) for key, entry in KEYS.items() if entry.absent is not _NEEDED
)


def fill(config: ConfigDict) -> None:
    """Gives a study's configuration the keys that it may leave out."""
    for section, name, value in _ABSENT:
        if isinstance(config.get(section), ConfigDict) and name not in config[section]:
            with config.unlocked():
                config[section][name] = value


def without_absent_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's plain configuration as its record holds it."""
    config = {k: dict(v) if isinstance(v, Mapping) else v for k, v in config.items()}
    for section, name, value in _ABSENT:
        if config[section][name] == value:
            del config[section][name]
    return config


def with_absent_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration of any version with all of its keys, as they are called now."""
    config = with_present_names(config)
    for section, name, value in _ABSENT:
        config[section] = {name: value} | config[section]
    return config


def unknown_key(key: str, known: Iterable[str]) -> ConfigError:
    """The error that names a wrong key and the right one."""
    if key in RENAMED:
        return ConfigError(f"configuration key {key!r} is called {RENAMED[key]!r} now")
    return ConfigError(f"unknown configuration key {key!r}: {nearest(key, known)}")


def check_keys(config: Mapping[str, Any] | ConfigDict) -> None:
    """Raises ConfigError if a section or a key is missing, or a section has an unknown one."""
    sections: dict[str, list[str]] = {}
    for key in KEYS:
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
                raise unknown_key(key, known)
        for key in known:
            if key not in given:
                raise ConfigError(f"key {key!r} is missing, expected {KEYS[key].rule.expected}")


def check_value(key: str, value: Any) -> None:
    """Raises ConfigError if a key cannot have this value."""
    if not KEYS[key].rule.allows(value):
        raise ConfigError(f"{key} is {value!r}, expected {KEYS[key].rule.expected}")


def check(config: Mapping[str, Any]) -> None:
    """Raises ConfigError unless a plain configuration has exactly the keys above, in range."""
    check_keys(config)
    for key in KEYS:
        section, dot, name = key.rpartition(".")
        check_value(key, config[section][name] if dot else config[name])
    if (config["train"]["steps"] is None) == (config["train"]["epochs"] is None):
        raise ConfigError(
            "expected exactly one of train.steps and train.epochs; set the other to none"
        )
