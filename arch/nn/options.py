"""Options of the architectures: how some are passed on, and checks that say what was expected."""

import inspect
import numbers
from collections.abc import Callable, Collection, Sequence
from typing import Any


def with_those_of(cls: type, *, without: Collection[str] = ()) -> Callable[[Any], Any]:
    """Decorator of a constructor whose `**others` are the options of `cls`, to which it gives them.

    They are declared and documented by `cls` alone. The constructor's signature names them in place
    of `**others`, for what reads it: the registry and help(). `without` are those that the
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
    """Raises ValueError unless value is an integer >= low."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {value!r}, expected an integer of at least {low}")
    if value < low:
        raise ValueError(f"{name} is {value}, expected at least {low}")


def even(name: str, value: int) -> None:
    """Raises ValueError unless value is even."""
    if value % 2:
        raise ValueError(f"{name} is {value}, expected an even number, such as {value + 1}")


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError unless value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}")


def interval(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raises ValueError unless 0 < low <= high."""
    if not 0 < low <= high:
        raise ValueError(
            f"{low_name} is {low} and {high_name} {high}, expected 0 < {low_name} <= {high_name}"
        )


def divides(name: str, divisor: int, whole_name: str, whole: int) -> None:
    """Raises ValueError, naming the nearest divisor, unless divisor >= 1 divides whole."""
    at_least(name, divisor, 1)
    if whole % divisor:
        divisors = (d for d in range(1, whole + 1) if whole % d == 0)
        nearest = min(divisors, key=lambda d: abs(d - divisor))
        raise ValueError(
            f"{name} is {divisor}, expected a divisor of {whole_name} {whole}, such as {nearest}"
        )
