"""`--only KEY=VALUE`: a part of a study's trials."""

import argparse
import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runners.core.errors import ConfigError, nearest
from runners.core.identity import leaves
from runners.core.naming import mixer_name
from runners.study import schema


def add_only(parser: argparse.ArgumentParser) -> None:
    """Gives a command the option that `select` reads."""
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KEY=VALUE[,VALUE]",
        help="keep the trials with these values, such as mixer=gla,s4d; may be repeated",
    )


def select(trials: list[dict[str, Any]], only: Sequence[str]) -> list[dict[str, Any]]:
    """The trials that match every `KEY=VALUE[,VALUE]`; KEY is a configuration key or its end.

    Raises:
      ConfigError: an unknown key, or a value that no trial has.
    """
    for condition in only:
        name, equals, wanted = condition.partition("=")
        if not equals:
            raise ConfigError(f"--only {condition}: expected KEY=VALUE, such as mixer=gla")
        known = {key for trial in trials for key, _ in _leaves(trial)}
        keys = [key for key in known if f".{key}".endswith(f".{name}")]
        if not keys:
            near = nearest(name, {key.rpartition(".")[2] for key in known})
            raise ConfigError(f"--only {condition}: no configuration key {name!r}; {near}")
        values = {_text(v) for t in trials for k, v in _leaves(t) if k in keys}
        chosen = {_canonical(value) for value in wanted.split(",")}
        for value in chosen - values:
            raise ConfigError(
                f"--only {condition}: no trial has {name} {value!r}; {nearest(value, values)}"
            )
        trials = [t for t in trials if any(k in keys and _text(v) in chosen for k, v in _leaves(t))]
    return trials


def _leaves(trial: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return leaves(schema.with_absent_keys(trial))


def _canonical(text: str) -> str:
    """A number as Python writes it, so that 1e-3 finds 0.001."""
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def _text(value: Any) -> str:
    """A value as a person writes it after --only."""
    is_pattern = isinstance(value, list) and all(isinstance(v, str) for v in value)
    return mixer_name(value) if is_pattern else str(value)
