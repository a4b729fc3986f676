"""The operators as plain loops in float64 numpy."""

import numpy as np
import pytest

from pallas_kernels import Full, Window


def _loop_attention(q, k, v, *, mask, q_segment_ids=None, kv_segment_ids=None, q_offset=0):
    batch, length, heads, width = q.shape
    o = np.zeros((batch, length, heads, v.shape[-1]))
    for b, t, h in np.ndindex(batch, length, heads):
        position, group = q_offset + t, h * k.shape[2] // heads
        seen = []
        for s in range(k.shape[1]):
            rule = isinstance(mask, Full) or s <= position
            if isinstance(mask, Window):
                rule = rule and position - s < mask.size
            if q_segment_ids is not None:
                rule = rule and q_segment_ids[b, t] == kv_segment_ids[b, s] != 0
            if rule:
                seen.append(s)
        if seen:
            scores = k[b, seen, group] @ q[b, t, h] / np.sqrt(width)
            weights = np.exp(scores - scores.max())
            o[b, t, h] = weights @ v[b, seen, group] / weights.sum()
    return (o,)


def _loop_long_convolution(u, kernel, *, causal=True):
    y = np.zeros_like(u)
    for t in range(u.shape[1]):
        for j in range(min(kernel.shape[-1], t + 1 if causal else u.shape[1])):
            y[:, t] += kernel[..., j] * u[:, t - j]
    return (y,)


def _loop_selective_scan(u, delta, A, B, C, D=None, h0=None):
    h = np.zeros((u.shape[0], *A.shape)) if h0 is None else h0
    y = np.zeros_like(u)
    for t in range(u.shape[1]):
        x = (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        h = np.exp(delta[:, t, :, None] * A) * h + x
        y[:, t] = np.einsum("bdn,bn->bd", h, C[:, t])
    return (y if D is None else y + D * u), h


def _loop_gated_linear_attention(q, k, v, log_decay=None, initial_state=None):
    batch, length, heads, width = q.shape
    state = np.zeros((batch, heads, width, v.shape[-1])) if initial_state is None else initial_state
    if log_decay is None:
        log_decay = np.zeros(q.shape)
    elif log_decay.ndim == 3:
        log_decay = np.repeat(log_decay[..., None], width, -1)
    o = np.zeros(v.shape)
    for t in range(length):
        state = np.exp(log_decay[:, t])[..., None] * state
        state = state + np.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        o[:, t] = np.einsum("bhk,bhkv->bhv", q[:, t], state) / np.sqrt(width)
    return o, state


@pytest.fixture(scope="session")
def loops():
    return {
        "attention": _loop_attention,
        "long_convolution": _loop_long_convolution,
        "selective_scan": _loop_selective_scan,
        "gated_linear_attention": _loop_gated_linear_attention,
    }
