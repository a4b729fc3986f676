"""Registry of architectures: by name, or by import path for those outside this repository."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from flax import nnx

from arch.interface import SequenceMixer

_MIXERS: dict[str, type[SequenceMixer]] = {}


def register(name: str) -> Callable[[type[SequenceMixer]], type[SequenceMixer]]:
    """Class decorator that makes a mixer known as `name`; ValueError if the name is taken."""

    def add(cls: type[SequenceMixer]) -> type[SequenceMixer]:
        if _MIXERS.setdefault(name, cls) is not cls:
            raise ValueError(
                f"architecture {name!r} is already registered by {_MIXERS[name].__module__}"
            )
        return cls

    return add


def names() -> list[str]:
    """Names of the registered architectures, sorted."""
    return sorted(_MIXERS)


def get(name: str) -> type[SequenceMixer]:
    """Return the mixer class of a registered name or import path `my_package.my_file:MyMixer`.

    Raises:
      ValueError: no such architecture; the message has the nearest known name or the import
        error.
    """
    if name in _MIXERS:
        return _MIXERS[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, _MIXERS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}"
        raise ValueError(
            f"unknown architecture {name!r}: {hint} (or give an import path module:Class)"
        )
    module, _, attribute = name.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module from outside may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"architecture {name!r} cannot be imported: {reason}") from error
    if not (inspect.isclass(cls) and issubclass(cls, SequenceMixer)):
        raise ValueError(f"architecture {name!r} is not a subclass of arch.SequenceMixer")
    return cls


def build(
    name: str,
    d_model: int,
    *,
    rngs: nnx.Rngs,
    max_length: int | None = None,
    num_layers: int | None = None,
    **options: Any,
) -> SequenceMixer:
    """Build a mixer.

    Args:
      name: a registered name or an import path `module:Class`.
      d_model: width D of its input and output.
      rngs: source of the initial parameters.
      max_length: the longest sequence in tokens, for mixers with this option.
      num_layers: depth of the model, for mixers with this option.
      **options: the architecture's own.

    Raises:
      ValueError: an unknown name or option, or an impossible value; the message names the nearest
        known one.
    """
    check_options(name, options)
    cls = get(name)
    for option, value in (("max_length", max_length), ("num_layers", num_layers)):
        if value is not None and option in _options(cls):
            options[option] = value
    return cls(d_model, rngs=rngs, **options)


def packs(
    name: str,
    d_model: int,
    *,
    max_length: int | None = None,
    num_layers: int | None = None,
    **options: Any,
) -> bool:
    """Return True if the mixer that `build` makes of these keeps packed documents apart.

    No parameter is drawn. Raises ValueError as `build` does.
    """
    lengths = {"max_length": max_length, "num_layers": num_layers}
    mixer = nnx.eval_shape(lambda: build(name, d_model, rngs=nnx.Rngs(0), **lengths, **options))
    return mixer.packs


def check_options(name: str, options: Iterable[str]) -> None:
    """Raise ValueError, with the nearest known one, for an option that the architecture lacks."""
    known = _options(get(name))
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"it takes: {', '.join(known) or 'no options'}"
            )
            raise ValueError(f"architecture {name!r} has no option {option!r}: {hint}")


def _options(cls: type[SequenceMixer]) -> list[str]:
    parameters = inspect.signature(cls.__init__).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "rngs"]
