"""Backends of the operators: their registry, the choice between them, and checks of arguments."""

import contextlib
import contextvars
import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Target:
    """The platform that operators are traced for.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      interpret: whether Pallas kernels run in the interpreter, on whatever platform is at hand.
    """

    platform: str
    interpret: bool = False


_TARGET: contextvars.ContextVar[Target | None] = contextvars.ContextVar("target", default=None)


@contextlib.contextmanager
def target(platform: str, *, interpret: bool = False) -> Iterator[None]:
    """Traces operators for another platform than the one at hand.

    To export a program for a TPU from a laptop, or to run a kernel in the interpreter. A function
    that has been jitted and called keeps the platform it was traced for.

    Args:
      platform: "cpu", "gpu" or "tpu".
      interpret: run Pallas kernels in the interpreter.
    """
    if platform not in ("cpu", "gpu", "tpu"):
        raise ValueError(f"unknown platform {platform!r}: choose cpu, gpu or tpu")
    token = _TARGET.set(Target(platform, interpret))
    try:
        yield
    finally:
        _TARGET.reset(token)


def current_target() -> Target:
    """That of the enclosing `target`, else the platform of jax's default device."""
    asked = _TARGET.get()
    if asked is not None:
        return asked
    device = jax.config.jax_default_device
    return Target(device.platform if hasattr(device, "platform") else jax.default_backend())


_USED: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("used", default=None)


@contextlib.contextmanager
def used() -> Iterator[list[str]]:
    """Collects the names of the operators that are traced inside, in order, each once."""
    names: list[str] = []
    token = _USED.set(names)
    try:
        yield names
    finally:
        _USED.reset(token)


def _no_obstacle(*args: Any, **kwargs: Any) -> None:
    """A backend without limits."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """One way to compute an operator.

    Attributes:
      run: takes the operator's arguments, validated, without `implementation`.
      obstacle: takes the same arguments (arrays or anything with a shape and a dtype) and returns
        None if the backend can run them on its platform, else the reason why not.
      on_request: runs only when it is named, because no measurement has shown it to be faster.
      platform: the only one it runs on, "gpu" or "tpu"; None is every platform.
      is_kernel: hand-written, so that the operations inside cannot be counted in the jaxpr.
    """

    run: Callable[..., Any]
    obstacle: Callable[..., str | None] = _no_obstacle
    on_request: bool = False
    platform: str | None = None
    is_kernel: bool = False

    def why_not(self, *args: Any, **kwargs: Any) -> str | None:
        """Why it cannot run these arguments on the current target, or None if it can.

        Takes arguments as a user gives them: by name or place, some of them left out.
        """
        current = current_target().platform
        if self.platform not in (None, current):
            return f"it needs a {self.platform}, and this is a {current}"
        signature = inspect.signature(self.obstacle)
        bound = signature.bind_partial(*args, **kwargs)
        for name, parameter in signature.parameters.items():
            if parameter.default is parameter.empty and parameter.kind in _NAMED:
                bound.arguments.setdefault(name, None)
        return self.obstacle(*bound.args, **bound.kwargs)


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def imported(module: str, function: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is first called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), function)(*args, **kwargs)

    return call


def kernel(operator: str, platform: str) -> Backend:
    """Our Pallas kernel for a platform, `pallas_kernels/<operator>/pallas_<platform>.py`.

    On request only, because none has been measured yet; imported when it is used.
    """

    def obstacle(*args: Any, **kwargs: Any) -> str | None:
        for x in (*args, *kwargs.values()):
            if getattr(x, "dtype", None) in (jnp.float64, jnp.complex128):
                return f"it computes in float32, and an input is {x.dtype}"
        return None

    run = imported(f"pallas_kernels.{operator}.pallas_{platform}", operator)
    return Backend(run, obstacle, on_request=True, platform=platform, is_kernel=True)


class Operator:
    """The backends of one operator, fastest first."""

    def __init__(self, name: str, backends: Mapping[str, Backend]):
        self.name = name
        self.backends = dict(backends)
        _OPERATORS[name] = self

    def choose(self, implementation: str | None, *args: Any, **kwargs: Any) -> str:
        """The backend that runs these arguments; raises ValueError if the named one cannot."""
        if implementation is None:
            return next(
                name
                for name, backend in self.backends.items()
                if not backend.on_request and backend.why_not(*args, **kwargs) is None
            )
        if implementation not in self.backends:
            raise ValueError(
                f"{self.name} has no implementation {implementation!r}: "
                f"choose one of {', '.join(self.backends)}, or None for the fastest"
            )
        obstacle = self.backends[implementation].why_not(*args, **kwargs)
        if obstacle is not None:
            raise ValueError(
                f"{self.name} cannot run with implementation {implementation!r}: {obstacle}; "
                f"choose one of {', '.join(self.backends)}, or None for the fastest"
            )
        return implementation

    def run(self, implementation: str | None, *args: Any, **kwargs: Any) -> Any:
        """Runs the chosen backend."""
        names = _USED.get()
        if names is not None and self.name not in names:
            names.append(self.name)
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
    return _operator(operator).choose(implementation, *args, **kwargs)


def available(operator: str, *args: Any, **kwargs: Any) -> dict[str, str | None]:
    """Every implementation of `operator`, with the reason why it cannot run these arguments.

    Args:
      operator: name of a public function.
      *args: its arguments; `jax.ShapeDtypeStruct` will do for arrays.
      **kwargs: its keyword arguments.

    Returns:
      {name: None if it can run, else why not}.
    """
    found = backends(operator).items()
    return {name: backend.why_not(*args, **kwargs) for name, backend in found}


def operators() -> tuple[str, ...]:
    """The names of all operators."""
    return tuple(_OPERATORS)


def backends(operator: str) -> Mapping[str, Backend]:
    """The backends of an operator by name, fastest first."""
    return _operator(operator).backends


def _operator(name: str) -> Operator:
    if name not in _OPERATORS:
        near = difflib.get_close_matches(name, _OPERATORS, 1) or sorted(_OPERATORS)
        raise ValueError(f"unknown operator {name!r}: did you mean {' or '.join(near)}?")
    return _OPERATORS[name]


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


def matmul_precision(*arrays: jax.Array | None) -> jax.lax.Precision:
    """Of the products inside an operator: full float32 unless every input is bfloat16.

    Accelerators multiply float32 matrices with 8 to 11 bits by default, which is enough for
    operands that were bfloat16 when they came, and for no others.
    """
    narrow = all(x.dtype == jnp.bfloat16 for x in arrays if x is not None)
    return jax.lax.Precision.DEFAULT if narrow else jax.lax.Precision.HIGHEST
