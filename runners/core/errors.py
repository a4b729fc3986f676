"""Errors for people: one line that names the value, what was expected and the way out."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A request that cannot be right; its message is one line for the person who made it."""


class ResultsError(ValueError):
    """Unusable results folder or trial file; the message is one line and names the way out."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
