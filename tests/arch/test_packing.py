"""Packed rows of a whole backbone: every document as if it were alone in its row.

For every registered causal mixer that packs; the others refuse by name. The laws of the mixers
alone are in test_laws.py.
"""

import dataclasses
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from perturbed import perturbed

import arch

T, D, V = 23, 16, 13

# (row, segment id, tokens) of each document, in the order of its row. Documents of one token, two
# borders within the four taps of a filter, odd borders elsewhere; an id that comes back; the last
# document of row 0 is cut at the row's end, and row 1 ends with padding.
DOCUMENTS = [
    *[(0, i + 1, length) for i, length in enumerate((7, 1, 1, 2, 9, 3))],
    *[(1, *document) for document in ((3, 1), (2, 4), (3, 12), (5, 1), (0, 5))],
]

# As in the laws of the mixers: sums of at most T · 4 D = 23 · 64 rounded terms, √1472 · 6e-8 =
# 2.3e-6 of the terms, for each of two layers, and a factor 20 is left for sums that cancel.
TOLERANCE = 1e-4

# Twice through every mixer, and behind the short convolution that the studies put before it.
PATTERNS = ["attention", "deltanet", "gla", "mamba", "mamba2"]
OPTIONS = [("gla", {"conv_size": 4}), ("mom", {"rule": "linear", "conv_size": 4})]


def _causal(packing):
    """Registered causal mixers that keep documents apart with their default options, or do not."""
    return [n for n in arch.names() if _mixer(n).causal and _mixer(n).packs == packing]


@functools.cache
def _mixer(name):
    return nnx.eval_shape(lambda: arch.build(name, D, rngs=nnx.Rngs(0), max_length=T))


def build(mixer, **options):
    """A backbone whose every parameter is moved off its initial value, which hides many terms."""
    model = arch.Backbone(
        mixer, D, num_layers=2, vocab_size=V, max_length=T, rngs=nnx.Rngs(0), **options
    )
    return perturbed(model, 0.05)


def segment_ids():
    return np.stack([np.repeat(*zip(*row, strict=True)) for row in _rows()])


def _rows():
    return [[(i, n) for r, i, n in DOCUMENTS if r == row] for row in (0, 1)]


def places():
    """(row, first token, token after the last) of each document that is no padding."""
    found, start = [], [0, 0]
    for row, i, length in DOCUMENTS:
        if i:
            found.append((row, start[row], start[row] + length))
        start[row] += length
    return found


def tokens(seed=0):
    return jax.random.randint(jax.random.key(seed), (2, T), 0, V)


def alone(ids):
    """One row a document, [documents, T]: what follows it is noise, which it cannot see."""
    rows = jax.random.randint(jax.random.key(7), (len(places()), T), 0, V)
    for n, (row, start, stop) in enumerate(places()):
        rows = rows.at[n, : stop - start].set(ids[row, start:stop])
    return rows


def documents(packed):
    """Cut each document out of [2, T, …]."""
    return [packed[row, start:stop] for row, start, stop in places()]


def error(actual, expected):
    actual, expected = (np.asarray(a, np.float64) for a in (actual, expected))
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@dataclasses.dataclass
class Case:
    """A backbone with its compiled forms."""

    model: Any
    forward: Any = dataclasses.field(
        default_factory=lambda: jax.jit(
            lambda m, ids, segments: m(ids, context=arch.Context(segment_ids=segments))
        )
    )

    def packed(self, ids):
        return self.forward(self.model, ids, segment_ids())


CASES = [
    *[pytest.param((name, {}, True), id=name) for name in _causal(True)],
    *[
        pytest.param((name, options, True), id=f"{name}-{'-'.join(options)}")
        for name, options in OPTIONS
    ],
    *[
        pytest.param((["base_conv", name], {}, positions), id=f"base_conv-{name}-{positions}")
        for name in PATTERNS
        for positions in (True, False)
    ],
]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    mixer, options, positions = request.param
    return Case(build(mixer, mixer_options=options, position_embedding=positions))


def test_every_document_is_as_if_alone(case):
    ids = tokens()
    expected = case.forward(case.model, alone(ids), None)
    for n, actual in enumerate(documents(case.packed(ids))):
        assert error(actual, expected[n, : len(actual)]) < TOLERANCE, n


def test_the_law_fails_where_borders_are_ignored(case):
    """Without segment ids a row is one document, and all but the first of each row are off."""
    ids = tokens()
    expected = case.forward(case.model, alone(ids), None)
    ignored = documents(case.forward(case.model, ids, None))
    off = [error(y, expected[n, : len(y)]) > 10 * TOLERANCE for n, y in enumerate(ignored)]
    assert off == [start > 0 for _, start, _ in places()]


def test_another_document_before_it_changes_no_bit(case):
    """A masked score, a cut tap and a decay of 0 add an exact 0."""
    ids, segments = tokens(), segment_ids()
    first = segments == segments[:, :1]
    first = first & (jnp.cumsum(~first, axis=1) == 0)
    one, other = (case.packed(jnp.where(first, tokens(seed), ids)) for seed in (0, 1))
    assert not np.array_equal(one[first], other[first])
    np.testing.assert_array_equal(one[~first], other[~first])


def test_gradients_stop_at_the_borders(case):
    """A loss on one document has the gradient 0 at the embedded inputs of all others, and all
    losses together have the gradients of documents that are alone."""
    ids, segments = tokens(), segment_ids()
    weight = jax.random.normal(jax.random.key(3), (2, T, V))

    def loss(x, model, weight):
        with mock.patch.object(arch.Backbone, "embed", return_value=x):
            logits = model(ids, context=arch.Context(segment_ids=segments))
        return jnp.sum(weight * logits)

    gradient = jax.jit(jax.grad(loss))
    x = case.model.embed(ids, 0, arch.Context(segment_ids=segments))
    for row, start, stop in (places()[4], places()[8]):  # the long ones
        here = jnp.zeros((2, T, 1)).at[row, start:stop].set(1)
        found = np.asarray(gradient(x, case.model, weight * here))
        assert np.all(np.isfinite(found))
        assert np.all(np.any(found != 0, axis=-1) <= (here[..., 0] == 1))
        assert np.any(found[row, start] != 0)


@pytest.mark.parametrize("name", ["base_conv", "deltanet", "gla", "mamba", "mamba2"])
def test_parameters_get_the_gradients_of_documents_that_are_alone(name):
    options = {"gla": {"conv_size": 4}}.get(name, {})
    model, ids = build(name, mixer_options=options, position_embedding=True), tokens()
    weight = jax.random.normal(jax.random.key(3), (2, T, V))
    of_each = jnp.zeros((len(places()), T, V))
    real = jnp.zeros((2, T, 1))
    for n, (row, start, stop) in enumerate(places()):
        of_each = of_each.at[n, : stop - start].set(weight[row, start:stop])
        real = real.at[row, start:stop].set(1)

    @jax.jit
    def gradients(model, ids, segments, weight):
        context = arch.Context(segment_ids=segments)
        return jax.grad(lambda m: jnp.sum(weight * m(ids, context=context)))(model)

    packed = jax.tree.leaves_with_path(gradients(model, ids, segment_ids(), weight * real))
    expected = jax.tree.leaves(gradients(model, alone(ids), None, of_each))
    for (path, actual), wanted in zip(packed, expected, strict=True):
        # Backward, the sums run over batch and time as well: one order above the forward pass.
        assert error(actual, wanted) < 10 * TOLERANCE, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", _causal(False))
def test_a_mixer_that_cannot_pack_refuses_by_name(name):
    model = nnx.eval_shape(lambda: build(name))
    refusal = f"{_mixer(name).__class__.__name__} cannot keep packed documents apart: give one"
    ids, context = tokens(), arch.Context(segment_ids=segment_ids())
    with pytest.raises(ValueError, match=refusal):
        jax.eval_shape(lambda m: m(ids, context=context), model)


def test_parts_of_a_row_know_where_documents_begin():
    model, ids, segments = build(["gla", "deltanet"]), tokens(), segment_ids()
    extend = jax.jit(lambda m, s, x, i: m.extend(s, x, arch.Context(segment_ids=i)))
    state, parts = model.initial_state(2, T), []
    for start, stop in ((0, 7), (7, 8), (8, 9), (9, 16), (16, 23)):
        state, y = extend(model, state, ids[:, start:stop], segments[:, start:stop])
        parts.append(y)
    assert error(jnp.concatenate(parts, axis=1), Case(model).packed(ids)) < TOLERANCE


@pytest.mark.parametrize("name", ["base_conv", "mamba"])
def test_a_state_without_a_segment_id_refuses_by_name(name):
    model = build(name)
    refusal = f"{_mixer(name).__class__.__name__} cannot keep packed documents apart in extend"
    with pytest.raises(ValueError, match=refusal):
        model.extend(model.initial_state(2, T), tokens(), arch.Context(segment_ids=segment_ids()))
