"""Tasks by name, and by import path for those that live outside this repository."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from tasks.interface import Task

_TASKS: dict[str, type[Task]] = {}


def register(name: str) -> Callable[[type[Task]], type[Task]]:
    """Class decorator that makes a task known as `name`; raises ValueError if the name is taken."""

    def add(cls: type[Task]) -> type[Task]:
        if _TASKS.setdefault(name, cls) is not cls:
            raise ValueError(f"task {name!r} is already registered by {_TASKS[name].__module__}")
        return cls

    return add


def names() -> list[str]:
    """Every registered task, sorted."""
    return sorted(_TASKS)


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"


def get(name: str) -> type[Task]:
    """The task class behind a registered name or an import path `my_package.my_file:MyTask`.

    Raises:
      ValueError: no such task; the message holds the nearest known name or what failed to import.
    """
    if name in _TASKS:
        return _TASKS[name]
    if ":" not in name:
        hint = _nearest(name, names())
        raise ValueError(f"unknown task {name!r}: {hint} (or give an import path module:Class)")
    module, _, attribute = name.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module from outside may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"task {name!r} cannot be imported: {reason}") from error
    if not (inspect.isclass(cls) and issubclass(cls, Task)):
        raise ValueError(f"task {name!r} is not a subclass of tasks.Task")
    return cls


def build(name: str, **options: Any) -> Task:
    """Builds a task.

    Args:
      name: a registered name or an import path `module:Class`.
      **options: the task's own.

    Raises:
      ValueError: an unknown name or option (the message names the nearest known one), or an
        impossible value.
    """
    cls = get(name)
    parameters = inspect.signature(cls).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            hint = _nearest(option, known)
            raise ValueError(f"task {name!r} has no option {option!r}: {hint}")
    return cls(**options)
