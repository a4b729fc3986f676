"""One step of the recurrence, for the kernels, whose compilers know no complex numbers.

A number is a tuple of planes: (real,) or (real part, imaginary part).
"""

import jax
import jax.numpy as jnp

Planes = tuple[jax.Array, ...]


def split(number: jax.Array, planes: int) -> Planes:
    """An array as one plane or two."""
    return (number,) if planes == 1 else (jnp.real(number), jnp.imag(number))


def join(number: Planes) -> jax.Array:
    """The inverse of `split`."""
    return number[0] if len(number) == 1 else jax.lax.complex(*number)


def multiply(a: Planes, b: Planes) -> Planes:
    """a b."""
    if len(a) == 1:
        return (a[0] * b[0],)
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def add(a: Planes, b: Planes) -> Planes:
    """a + b."""
    return tuple(u + v for u, v in zip(a, b, strict=True))


def where(condition: jax.Array, a: Planes, b: Planes) -> Planes:
    """a where the condition holds, b elsewhere."""
    return tuple(jnp.where(condition, u, v) for u, v in zip(a, b, strict=True))


def step(a: Planes, x: Planes, c: Planes, decay_after: bool) -> tuple[Planes, Planes]:
    """(y_t, c) of `gradient`, in either order of decay and addition."""
    if decay_after:
        y = add(c, x)
        return y, multiply(a, y)
    c = add(multiply(a, c), x)
    return c, c
