"""Softmax attention under masks by rule: values, and the parts that a mask is taken apart in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import SPARSE, B, each_mask, packed
from operator_suite import (
    TOLERANCE,
    Case,
    OperatorSuite,
    assert_close,
    cast,
    outputs_and_gradients,
)

import pallas_kernels
from pallas_kernels import (
    BlockLocal,
    Causal,
    Column,
    Fixed,
    Full,
    PrefixWindow,
    Strided,
    Summary,
    Window,
)
from pallas_kernels.attention import tiles
from pallas_kernels.attention.parts import parts
from pallas_kernels.example import examples


def _inputs(rng, t, heads=2, groups=2, keys=None):
    s = keys or t
    return [
        rng.normal(size=(B, t, heads, 8)),
        rng.normal(size=(B, s, groups, 8)),
        rng.normal(size=(B, s, groups, 5)),
    ]


def _sees(mask, i, j):
    """True if query i sees key j, in the words of the masks' docstrings."""
    past = j <= i
    match mask:
        case Full():
            return True
        case Causal():
            return past
        case Window(size):
            return past and i - j < size
        case PrefixWindow(prefix, size):
            return past and (i - j < size or j < prefix)
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


def _cached(keys, mask, offset):
    return Case(_partial(_inputs, keys=keys), lambda t: {"mask": mask, "q_offset": offset})


class TestAttention(OperatorSuite):
    operator = "attention"
    implementations = ("reference", "xla")
    cases = {  # noqa: RUF012
        "grouped": Case(_GROUPED, lambda t: {"mask": Causal()}),
        "full": Case(_inputs, lambda t: {"mask": Full()}),
        "documents": Case(_inputs, lambda t: packed(Causal(), t)),
        "cache": _cached(90, Window(20), 10),
        **{str(mask): Case(_GROUPED, lambda t, mask=mask: {"mask": mask}) for mask in SPARSE},
        "strided documents": Case(_GROUPED, lambda t: packed(Strided(5), t)),
        "fixed documents": Case(_GROUPED, lambda t: packed(Fixed(7, 2), t)),
        "window beyond the cache": _cached(90, Window(20), 33),
        "blocks of a cache": _cached(250, BlockLocal(6), 33),
        "prefix documents": Case(_GROUPED, lambda t: packed(PrefixWindow(3, 7), t)),
        "prefix of a cache": _cached(250, PrefixWindow(30, 7), 33),
        "strided cache": _cached(250, Strided(5), 33),
        "fixed cache": _cached(250, Fixed(7, 2), 33),
    }
    loop = _loop

    def test_regrouped(self, case):
        """From two blocks of queries on, masks are taken apart."""
        self.check(case, "xla", 200)

    def test_small_tiles(self, case, monkeypatch):
        """Many tiles along every axis, none of which the sizes are a multiple of."""
        monkeypatch.setattr(tiles, "_BLOCK", 16)
        monkeypatch.setattr(tiles, "_SCORES_ON_CPU", 3 * 16**2)
        self.check(case, "xla", 65)

    @pytest.mark.parametrize("mask", [Causal(), Strided(128), Fixed(128, 8)], ids=str)
    def test_no_drift(self, mask):
        """The last of 16,384 rows, and what they send back to all keys."""
        length, rows = 16_384, 128
        rng = np.random.default_rng(0)
        inputs = cast([rng.normal(size=(1, length, 1, 8)) for _ in range(3)], "float32")
        weights = rng.normal(size=(1, rows, 1, 8))

        def results(implementation, first, *arrays):
            @jax.jit
            def run(q, k, v):
                def last_rows(q, k, v):
                    q = q[:, first:]
                    options = {"mask": mask, "q_offset": first, "implementation": implementation}
                    return pallas_kernels.attention(q, k, v, **options)[:, -rows:]

                o, transpose = jax.vjp(last_rows, q, k, v)
                return o, *transpose(jnp.asarray(weights, o.dtype))

            return [np.asarray(x) for x in run(*arrays)]

        with jax.enable_x64(True):
            truth = results("reference", length - rows, *cast(inputs, "float64"))
        assert_close(results("xla", 0, *inputs), truth, TOLERANCE["float32"])


@each_mask
@pytest.mark.parametrize("sizes", [(300, 300, 0), (150, 500, 41), (200, 90, 3)], ids=str)
def test_parts_hold_every_key_once(mask, sizes):
    length, num_keys, offset = sizes
    query, key = np.arange(length), np.arange(num_keys)
    count = np.zeros((length, num_keys), int)
    for part in parts(mask, length, num_keys, offset):
        # Which query and which key stands at each place, counted from 1; 0 is a gap.
        queries = np.asarray(part.queries(1 + query[None]))
        keys = np.asarray(part.keys(1 + key[None]))
        places = part.q_offset + np.arange(queries.shape[1])
        visible = part.rule.visible(places[:, None], np.arange(keys.shape[1]))
        for i, j in zip(queries, keys, strict=True):
            seen = visible & (i[:, None] > 0)
            assert part.sees_gaps or not np.any(seen & (j == 0))
            rows, columns = np.nonzero(seen & (j > 0))
            np.add.at(count, (i[rows] - 1, j[columns] - 1), 1)
    truth = [[_sees(mask, offset + i, j) for j in key] for i in query]
    np.testing.assert_array_equal(count, truth)


@each_mask
def test_reach_holds_what_is_visible(mask):
    key = np.arange(40)
    for first, last in ((0, 0), (0, 13), (5, 8), (20, 35)):
        start, stop = mask.reach(first, last)
        seen = np.any(mask.visible(np.arange(first, last + 1)[:, None], key), axis=0)
        assert not np.any(seen & ((key < start) | (key >= stop)))


@pytest.mark.parametrize("name", ["strided", "fixed"])
def test_sparse_masks_save_work_and_memory(name):
    example = next(e for e in examples("attention") if e.name == name)
    length, mask = example.sizes["T"], example.options["mask"]
    scores = 0
    for part in parts(mask, length, length, 0):
        x = jax.ShapeDtypeStruct((1, length), jnp.float32)
        (b, t), (_, s) = jax.eval_shape(part.queries, x).shape, jax.eval_shape(part.keys, x).shape
        scores += b * t * s
    # For each query √T keys in each of two blocks and √T in its column; or √T keys in its block and
    # 8 of each of √T blocks.
    assert scores <= 9 * length**1.5

    arrays = jax.eval_shape(lambda: example.arrays(jax.random.key(0)))

    def temporary(implementation):
        def loss(arrays):
            options = {**example.options, "implementation": implementation}
            return jnp.sum(pallas_kernels.attention(**arrays, **options))

        compiled = jax.jit(jax.grad(loss)).lower(arrays).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert 8 * temporary("xla") <= temporary("reference")


def test_offset_may_be_traced():
    suite = TestAttention()
    arrays = cast(suite.inputs("strided cache", 200, "float32"), "float32")

    @jax.jit
    def run(offset):
        options = {"mask": Strided(5), "q_offset": offset}
        return outputs_and_gradients(lambda *a: (pallas_kernels.attention(*a, **options),), arrays)

    assert_close(run(33), suite.truth("strided cache", 200), TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Window(0), "size must be >= 1"),
        (lambda: PrefixWindow(4, 0), "size, with the query itself, >= 1"),
        (lambda: BlockLocal(0), "at least one"),
        (lambda: Column(0), "stride must be >= 1"),
        (lambda: Strided(-1), "stride must be >= 1"),
        (lambda: Summary(4, 5), "1 <= summary <= stride"),
        (lambda: Fixed(4, 0), "1 <= summary <= stride"),
    ],
)
def test_impossible_masks_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
