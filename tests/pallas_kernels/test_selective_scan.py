"""Mamba's selective scan."""

import functools

import numpy as np
from operator_suite import Case, OperatorSuite

B, D, N = 2, 6, 4


def _inputs(rng, t, skip=True, state=True, step=1.0):
    return [
        rng.normal(size=(B, t, D)),
        step * np.log1p(np.exp(rng.normal(size=(B, t, D)))),
        -np.exp(rng.normal(size=(D, N))),
        rng.normal(size=(B, t, N)),
        rng.normal(size=(B, t, N)),
        rng.normal(size=D) if skip else None,
        rng.normal(size=(B, D, N)) if state else None,
    ]


def _loop(u, delta, A, B, C, D=None, h0=None):
    h = np.zeros((u.shape[0], *A.shape)) if h0 is None else h0
    y = np.zeros_like(u)
    for t in range(u.shape[1]):
        x = (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        h = np.exp(delta[:, t, :, None] * A) * h + x
        y[:, t] = np.einsum("bdn,bn->bd", h, C[:, t])
    return (y if D is None else y + D * u), h


class TestSelectiveScan(OperatorSuite):
    operator = "selective_scan"
    implementations = ("reference", "xla")
    cases = {  # noqa: RUF012
        "all": Case(_inputs),
        "bare": Case(functools.partial(_inputs, skip=False, state=False)),
        "strong": Case(functools.partial(_inputs, step=30.0)),
    }
    loop = _loop
