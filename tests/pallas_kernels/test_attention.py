"""Softmax attention under masks by rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from operator_suite import (
    TOLERANCE,
    Case,
    OperatorSuite,
    assert_close,
    cast,
    outputs_and_gradients,
)

import pallas_kernels
from pallas_kernels import BlockLocal, Causal, Column, Fixed, Full, Strided, Summary, Window
from pallas_kernels.attention.parts import parts

B = 2


def _inputs(rng, t, heads=2, groups=2, keys=None):
    s = keys or t
    return [
        rng.normal(size=(B, t, heads, 8)),
        rng.normal(size=(B, s, groups, 8)),
        rng.normal(size=(B, s, groups, 5)),
    ]


def _documents(t):
    """Two documents, then padding, in the first row; one document in the second."""
    ids = np.ones((B, t), np.int32)
    ids[0, t // 3 :] = 2
    ids[0, t - t // 4 :] = 0
    return ids


def _packed(mask, t):
    return {"mask": mask, "q_segment_ids": _documents(t), "kv_segment_ids": _documents(t)}


def _sees(mask, i, j):
    """Whether query i sees key j, in the words of the masks' docstrings."""
    past = j <= i
    match mask:
        case Full():
            return True
        case Causal():
            return past
        case Window(size):
            return past and i - j < size
        case BlockLocal(size):
            return past and i // size == j // size
        case Column(stride):
            return past and (i - j) % stride == 0
        case Strided(stride):
            return past and (i - j < stride or (i - j) % stride == 0)
        case Summary(stride, summary):
            return past and (i == j or j % stride >= stride - summary)
        case Fixed(stride, summary):
            return past and (i // stride == j // stride or j % stride >= stride - summary)


def _loop(q, k, v, *, mask, q_segment_ids=None, kv_segment_ids=None, q_offset=0):
    batch, length, heads, width = q.shape
    o = np.zeros((batch, length, heads, v.shape[-1]))
    for b, t, h in np.ndindex(batch, length, heads):
        group = h * k.shape[2] // heads
        seen = [s for s in range(k.shape[1]) if _sees(mask, q_offset + t, s)]
        if q_segment_ids is not None:
            own = q_segment_ids[b, t]
            seen = [s for s in seen if own == kv_segment_ids[b, s] != 0]
        if seen:
            scores = k[b, seen, group] @ q[b, t, h] / np.sqrt(width)
            weights = np.exp(scores - scores.max())
            o[b, t, h] = weights @ v[b, seen, group] / weights.sum()
    return (o,)


_partial = functools.partial
_GROUPED = _partial(_inputs, heads=4)
_SPARSE = (Window(7), BlockLocal(6), Column(5), Strided(5), Summary(7, 2), Fixed(7, 2))


class TestAttention(OperatorSuite):
    operator = "attention"
    implementations = ("reference", "xla")
    cases = {  # noqa: RUF012
        "grouped": Case(_GROUPED, lambda t: {"mask": Causal()}),
        "full": Case(_inputs, lambda t: {"mask": Full()}),
        "documents": Case(_inputs, lambda t: _packed(Causal(), t)),
        "cache": Case(
            _partial(_inputs, keys=90), lambda t: {"mask": Window(20), "q_offset": 10}
        ),
        **{str(mask): Case(_GROUPED, lambda t, mask=mask: {"mask": mask}) for mask in _SPARSE},
    }
    loop = _loop
