"""Options of the architectures: inheriting them, and checks with one-line messages.

Every message reads "name is value, expected …".
"""

import inspect
import numbers
from collections.abc import Callable, Collection, Sequence
from typing import Any


def with_those_of(cls: type, *, without: Collection[str] = ()) -> Callable[[Any], Any]:
    """Decorator of a constructor that passes its `**others` on to `cls` as options.

    They are declared and documented by `cls` alone. In the constructor's signature they replace
    `**others`, so that the registry and help() list them. `without` names those that the
    constructor sets itself or that must keep their default.
    """

    def complete(init: Any) -> Any:
        signature = inspect.signature(init)
        *own, _ = signature.parameters.values()
        others = [
            parameter
            for name, parameter in inspect.signature(cls.__init__).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
            and name not in {*signature.parameters, *without}
        ]
        init.__signature__ = signature.replace(parameters=[*own, *others])
        return init

    return complete


def at_least(name: str, value: int, low: int) -> None:
    """Raise ValueError unless value is an integer >= low."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {value!r}, expected an integer of at least {low}")
    if value < low:
        raise ValueError(f"{name} is {value}, expected at least {low}")


def even(name: str, value: int) -> None:
    """Raise ValueError unless value is even."""
    if value % 2:
        raise ValueError(f"{name} is {value}, expected an even number, such as {value + 1}")


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}")


def interval(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raise ValueError unless 0 < low <= high."""
    if not 0 < low <= high:
        raise ValueError(
            f"{low_name} is {low} and {high_name} {high}, expected 0 < {low_name} <= {high_name}"
        )


def divides(name: str, divisor: int, whole_name: str, whole: int) -> None:
    """Raise ValueError, naming the nearest divisor, unless divisor >= 1 divides whole."""
    at_least(name, divisor, 1)
    if whole % divisor:
        divisors = (d for d in range(1, whole + 1) if whole % d == 0)
        nearest = min(divisors, key=lambda d: abs(d - divisor))
        raise ValueError(
            f"{name} is {divisor}, expected a divisor of {whole_name} {whole}, such as {nearest}"
        )
