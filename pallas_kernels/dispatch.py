"""Which backend of an operator runs, how that is asked, and the checks that all operators share."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def _no_obstacle(*args: Any, **kwargs: Any) -> None:
    """A backend without limits."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """One way to compute an operator.

    Attributes:
      run: takes the operator's arguments, validated, without `implementation`.
      obstacle: takes the same arguments (arrays or anything with a shape and a dtype) and returns
        None if the backend can run them on this platform, else the reason why not.
    """

    run: Callable[..., Any]
    obstacle: Callable[..., str | None] = _no_obstacle


class Operator:
    """The backends of one operator, fastest first."""

    def __init__(self, name: str, backends: Mapping[str, Backend]):
        self.name = name
        self.backends = dict(backends)
        _OPERATORS[name] = self

    def choose(self, implementation: str | None, *args: Any, **kwargs: Any) -> str:
        """The backend that runs these arguments; raises ValueError if the named one cannot."""
        if implementation is None:
            return next(n for n, b in self.backends.items() if b.obstacle(*args, **kwargs) is None)
        if implementation not in self.backends:
            raise ValueError(
                f"{self.name} has no implementation {implementation!r}: "
                f"choose one of {', '.join(self.backends)}, or None for the fastest"
            )
        obstacle = self.backends[implementation].obstacle(*args, **kwargs)
        if obstacle is not None:
            raise ValueError(
                f"{self.name} cannot run with implementation {implementation!r}: {obstacle}; "
                f"choose one of {', '.join(self.backends)}, or None for the fastest"
            )
        return implementation

    def run(self, implementation: str | None, *args: Any, **kwargs: Any) -> Any:
        """Runs the chosen backend."""
        return self.backends[self.choose(implementation, *args, **kwargs)].run(*args, **kwargs)


_OPERATORS: dict[str, Operator] = {}


def chosen(operator: str, *args: Any, implementation: str | None = None, **kwargs: Any) -> str:
    """The name of the implementation that `operator(*args, **kwargs)` takes.

    Args:
      operator: name of a public function, such as "gated_linear_attention".
      *args: its arguments; `jax.ShapeDtypeStruct` will do for arrays.
      implementation: as for the operator.
      **kwargs: its keyword arguments.
    """
    if operator not in _OPERATORS:
        near = difflib.get_close_matches(operator, _OPERATORS, 1) or sorted(_OPERATORS)
        raise ValueError(f"unknown operator {operator!r}: did you mean {' or '.join(near)}?")
    return _OPERATORS[operator].choose(implementation, *args, **kwargs)


def check_shapes(operator: str, **arrays: tuple[Any, str]) -> dict[str, int]:
    """Binds dimension letters to sizes; arrays that are None are skipped.

    `check_shapes("f", q=(q, "BTHK"), v=(v, "BTHV"))` returns {"B": 8, "T": 64, ...}.

    Raises:
      ValueError: an array's shape contradicts the letters.
    """
    sizes: dict[str, int] = {}
    for name, (array, letters) in arrays.items():
        if array is None:
            continue
        shape = jnp.shape(array) if not hasattr(array, "shape") else tuple(array.shape)
        known = {letter: sizes[letter] for letter in letters if letter in sizes}
        bound = dict(zip(letters, shape, strict=False)) | known
        if shape != tuple(bound.get(letter) for letter in letters) or 0 in shape:
            where = ", ".join(f"{letter}={size}" for letter, size in known.items())
            raise ValueError(
                f"{operator}: {name} has shape {list(shape)}, expected [{', '.join(letters)}]"
                f"{' with ' + where if where else ''}, no dimension 0"
            )
        sizes.update(bound)
    return sizes


def arithmetic_dtype(*arrays: jax.Array | None) -> jnp.dtype:
    """float32, or float64 where an input has it: the dtype of every intermediate value."""
    return jnp.result_type(jnp.float32, *(x.dtype for x in arrays if x is not None))
