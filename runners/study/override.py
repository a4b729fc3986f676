"""Overrides: changes of a study's configuration by dotted key, from a sweep or the command line."""

import ast
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

import arch
from runners.core.errors import ConfigError
from runners.core.identity import leaves
from runners.study import schema

# Sections whose keys belong to the architecture or the task, which check them by themselves.
_OPEN = ("model.mixer_options", "task.options")


def override(config: ConfigDict, changes: Mapping[str, Any]) -> None:
    """Sets dotted keys in place; text is read as the type of the value that it replaces.

    The key `model` takes the name of a published model.

    Raises:
      ConfigError: an unknown key, or a value of a wrong type.
    """
    for key, value in expand(changes).items():
        section, name = _find(config, key)
        if isinstance(value, str):
            value = _read(value, section, name)
        if isinstance(section.get(name), ConfigDict):
            value = _options(key, value, section[name])
        _set(section, name, key, value)


def expand(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes, with the keys of a published model in place of `model=<its name>`.

    They come first, so that a change of one key holds. The vocabulary is the task's.
    """
    name = changes.get("model")
    if not isinstance(name, str):
        return dict(changes)
    try:
        backbone = arch.published(name).backbone
    except ValueError as error:
        raise ConfigError(f"configuration key 'model': {error}") from error
    keys = {f"model.{key}": value for key, value in backbone.items() if key != "vocab_size"}
    return keys | {key: value for key, value in changes.items() if key != "model"}


def _find(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """The section that holds a key, and the key's name in it; options may be new."""
    is_open = key.startswith(tuple(f"{section}." for section in _OPEN))
    *path, name = key.split(".")
    section = config
    for part in path:
        if is_open and part not in section:  # the options of a mixer in a pattern
            with section.unlocked():
                section[part] = ConfigDict()
        section = section.get(part)
        if not isinstance(section, ConfigDict):
            break
    else:
        if is_open or name in section:
            return section, name
    raise schema.unknown_key(key, [known for known, _ in leaves(config)])


def _read(text: str, section: ConfigDict, name: str) -> Any:
    """The value that a text stands for; where a text is expected, only a list is parsed."""
    if isinstance(section.get(name), str) and not text.startswith("["):
        return text
    # An option of an architecture may be called none.
    named = {"true": True, "false": False} | ({"none": None} if name in section else {})
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if names := re.fullmatch(r"\[([^\[\]]+)\]", text):  # a shell eats the quotes of ['a','b']
        return [name.strip("'\" ") for name in names[1].split(",")]
    return text


def _options(key: str, value: Any, old: ConfigDict) -> ConfigDict:
    """The new value of a whole section."""
    if isinstance(value, Mapping | ConfigDict):
        return ConfigDict(value)
    own = ", ".join(f"{key}.{name}" for name in old) or f"{key}.<option>"
    raise ConfigError(
        f"configuration key {key!r} is {value!r}, expected one of its own keys: {own}"
    )


def _set(section: ConfigDict, name: str, key: str, value: Any) -> None:
    """Sets a value of the old one's type; what was None takes any."""
    old = section.get(name)
    if old is not None and isinstance(old, bool) != isinstance(value, bool):
        raise _wrong_type(key, value, old)  # ConfigDict takes true for 1
    try:
        with section.unlocked():
            if key == "model.mixer":  # a name or a pattern of names: the one key of two types
                section[name] = None
            section[name] = value
    except (TypeError, OverflowError) as error:  # the latter for an integer beyond every float
        raise _wrong_type(key, value, old) from error


def _wrong_type(key: str, value: Any, old: Any) -> ConfigError:
    known = schema.KEYS.get(key)
    expected = known.rule.expected if known else f"{type(old).__name__} such as {old!r}"
    return ConfigError(f"configuration key {key!r} is {value!r}, expected {expected}")
