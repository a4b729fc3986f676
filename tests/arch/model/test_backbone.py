"""The backbone: its head, its scanned layers, its recurrent form, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch
from arch.model.heads import tied_logits
from arch.model.layer_pattern import layer_list, segments

V, T, D = 50, 13, 16


def build(mixer="attention", num_layers=2, seed=0, **options):
    return arch.Backbone(
        mixer,
        D,
        num_layers=num_layers,
        vocab_size=V,
        max_length=16,
        rngs=nnx.Rngs(seed),
        **options,
    )


@pytest.fixture(scope="module")
def tokens():
    return jax.random.randint(jax.random.key(1), (3, T), 0, V)


def cross_entropy(logits, targets):
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probs, targets[..., None], -1)[..., 0]


def test_loss_at_supervised_positions_equals_the_masked_full_loss(tokens):
    """The same sum over the same logits; only the order of adding differs, a few units of 6e-8."""
    model = build()
    positions = jnp.array([[1, 5, 12], [0, 3, 4], [7, 8, 9]])
    targets = jax.random.randint(jax.random.key(2), positions.shape, 0, V)
    full_targets = jnp.put_along_axis(
        jnp.zeros((3, T), int), positions, targets, axis=1, inplace=False
    )
    mask = jnp.put_along_axis(jnp.zeros((3, T)), positions, 1.0, axis=1, inplace=False)

    def sparse(model):
        return cross_entropy(model(tokens, positions), targets).sum()

    def full(model):
        return (cross_entropy(model(tokens), full_targets) * mask).sum()

    (a, grad_a), (b, grad_b) = (jax.jit(jax.value_and_grad(f))(model) for f in (sparse, full))
    np.testing.assert_allclose(a, b, rtol=1e-5)
    for x, y in zip(jax.tree.leaves(grad_a), jax.tree.leaves(grad_b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_tied_logits_and_their_gradients():
    """Against float64 products; sums of at most 50 float32 terms: 50 · 6e-8 relative."""
    rng = np.random.default_rng(0)
    x, e, g = rng.normal(size=(2, 3, D)), rng.normal(size=(V, D)), rng.normal(size=(2, 3, V))
    y, pull = jax.vjp(tied_logits, *(jnp.asarray(a, jnp.float32) for a in (x, e)))
    dx, de = pull(jnp.asarray(g, jnp.float32))
    np.testing.assert_allclose(y, x @ e.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, g @ e, rtol=1e-5, atol=1e-5)
    expected = np.einsum("bpv,bpd->vd", g, x)
    np.testing.assert_allclose(de, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "runs"),
    [
        ("aaaa", [(0, 1, 4)]),
        ("abcabc", [(0, 3, 2)]),
        ("abbbb", [(0, 1, 1), (1, 1, 4)]),
        ("ababcccd", [(0, 2, 2), (4, 1, 3), (7, 1, 1)]),
        ("a", [(0, 1, 1)]),
    ],
)
def test_segments(layers, runs):
    assert segments(list(layers)) == runs


def test_a_pattern_is_repeated_and_takes_options_by_name():
    layers = layer_list(["attention", "gla"], 4, {"gla": {"num_heads": 2}})
    assert layers == [("attention", {}), ("gla", {"num_heads": 2})] * 2


def test_scanned_layers_equal_a_loop_over_them(tokens):
    model = build(["attention", "gla"], num_layers=4, channel_mixer="swiglu")
    x, forward = model.embedding[...][tokens], jax.jit(lambda m, x: m(x))
    for i in range(2):
        for stacked in model.runs[0]:
            x = forward(jax.tree.map(lambda p, i=i: p[i], stacked), x)
    expected = model.final_norm(x) @ model.embedding[...].T
    np.testing.assert_allclose(forward(model, tokens), expected, rtol=1e-4, atol=1e-5)


def test_the_program_does_not_grow_with_depth(tokens):
    """Compile time follows the program's size: layers that are alike must be one scan."""

    def size(num_layers):
        def loss(model):
            return model(tokens).sum()

        return len(str(jax.make_jaxpr(jax.grad(loss))(build(num_layers=num_layers))))

    assert size(12) < 1.05 * size(2)


@pytest.mark.parametrize("options", [{}, {"position_embedding": True, "channel_mixer": "mlp"}])
def test_extend_equals_the_parallel_form(tokens, options):
    """Law 1 for the whole stack: float32 rounding through four layers stays below 1e-4."""
    model = build(["attention", "base_conv"], num_layers=4, **options)
    extend = jax.jit(lambda m, s, x: m.extend(s, x))
    state, outputs = model.initial_state(3, T), []
    for start, stop in [(0, 5), (5, 6), (6, T)]:
        state, logits = extend(model, state, tokens[:, start:stop])
        outputs.append(logits)
    np.testing.assert_allclose(
        jnp.concatenate(outputs, axis=1), jax.jit(model.__call__)(tokens), rtol=1e-4, atol=1e-5
    )


def test_remat_changes_no_gradient(tokens):
    def gradients(remat):
        model = build(remat=remat, channel_mixer="mlp", norm="rms")
        return jax.tree.leaves(jax.jit(jax.grad(lambda m: m(tokens).sum()))(model))

    for a, b in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_close(tokens):
    """8 bits of mantissa (4e-3 a rounding) through two blocks, on logits of about 0.1."""
    a, b = build(compute_dtype="bfloat16")(tokens), build()(tokens)
    assert a.dtype == jnp.float32
    assert float(jnp.sqrt(jnp.mean((a - b) ** 2) / jnp.mean(b**2))) < 0.02


def test_dropout_acts_only_with_a_key(tokens):
    model = build(embedding_dropout=0.5)
    plain = model(tokens)
    np.testing.assert_array_equal(plain, build()(tokens))
    dropped = model(tokens, context=arch.Context(rng=jax.random.key(0)))
    assert not np.allclose(plain, dropped)
    again = model(tokens, context=arch.Context(rng=jax.random.key(0)))
    np.testing.assert_array_equal(dropped, again)


def test_state_bytes_are_those_of_all_layers():
    model = build(num_layers=3)
    per_layer = 2 * 16 * D * 4  # keys and values of 16 tokens
    assert 0 <= arch.state_bytes(model, 16) - 3 * per_layer <= 64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "batch"}, ["norm", "'batch'", "'layer'"]),
        ({"channel_mixer": "glu"}, ["channel_mixer", "'glu'", "'swiglu'"]),
        ({"compute_dtype": "float16"}, ["compute_dtype", "'float16'", "'bfloat16'"]),
        ({"num_layers": 0}, ["num_layers", "0"]),
        ({"mixer": ["gla", "attention"], "num_layers": 3}, ["num_layers", "3", "2 layers"]),
        ({"mixer": ["gla"], "mixer_options": {"mamba": {}}}, ["'mamba'", "gla"]),
        ({"mixer": "gal"}, ["'gal'", "'gla'"]),
    ],
)
def test_what_cannot_be_built_is_named(options, words):
    with pytest.raises(ValueError, match=r"expected|unknown") as error:
        build(**options)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("option", ["max_length", "num_layers"])
def test_what_the_backbone_fills_in_is_no_option_of_every_mixer(option):
    with pytest.raises(ValueError, match=f"architecture 'gla' has no option '{option}'"):
        arch.Backbone(
            "gla",
            8,
            num_layers=1,
            vocab_size=4,
            max_length=8,
            mixer_options={option: 5},
            rngs=nnx.Rngs(0),
        )


def training_loss(model, tokens):
    """A step's whole loss, as the trainer adds it up."""
    logits = model(tokens, context=arch.Context(training=True))
    auxiliary = jax.tree.leaves(nnx.state(model, arch.AuxiliaryLoss))
    return sum(auxiliary, start=logits.sum()), auxiliary


class TestAuxiliaryLoss:
    PATTERN = ("gla", "mom", "attention")

    @pytest.mark.parametrize("remat", [False, True])
    def test_is_the_sum_over_the_layers(self, tokens, remat):
        """Layer by layer by hand: the first unit, and then its repetition."""
        model = build(self.PATTERN, num_layers=6, remat=remat)
        x, expected = model.embedding[...][tokens], 0.0

        @jax.jit
        def forward(block, x):
            x = block(x, arch.Context(training=True))
            return x, jax.tree.leaves(nnx.state(block, arch.AuxiliaryLoss))

        for i in range(2):
            for stacked in model.runs[0]:
                x, losses = forward(jax.tree.map(lambda p, i=i: p[i], stacked), x)
                expected += sum(losses)
        (actual,) = jax.jit(training_loss)(model, tokens)[1]
        # Six layers round in another order; below 1e-5 of a mean of scores near 1 / 8.
        np.testing.assert_allclose(actual, expected, rtol=1e-5)

    def test_reaches_the_router_with_its_own_weight(self, tokens):
        """Twice the coefficient, twice what the loss adds to the gradient; none, nothing."""

        def router_gradient(balance, remat=False):
            # The router stands before its rule, of which the cheapest to compile will do.
            options = {"balance": balance, "rule": "linear", "conv_size": None}
            model = build("mom", mixer_options=options, remat=remat)
            grad = jax.jit(jax.grad(lambda m: training_loss(m, tokens)[0]))(model)
            return grad.runs[0][0].mixer.router.kernel[...]

        off, one, two = (router_gradient(balance) for balance in (0.0, 10.0, 20.0))
        assert float(jnp.linalg.norm(one - off)) > 1e-3
        # Differences of gradients of which each is rounded to about 1e-6 of the larger.
        np.testing.assert_allclose(two - off, 2 * (one - off), atol=1e-5 * jnp.abs(two).max())
        np.testing.assert_allclose(
            router_gradient(10.0, remat=True), one, atol=1e-5 * jnp.abs(one).max()
        )

    def test_costs_nothing_where_there_is_none(self, tokens):
        def program(context):
            return str(jax.make_jaxpr(lambda m: m(tokens, context=context))(build()))

        assert program(arch.Context(training=True)) == program(None)
        assert not training_loss(build(), tokens)[1]

    def test_is_no_part_of_the_model(self, tokens):
        model = build("mom")
        before = jax.tree.structure(model)
        model(tokens)
        assert jax.tree.structure(model) == before
        assert not jax.tree.leaves(nnx.split(model, nnx.Param, ...)[2])


def test_initial_parameters_are_those_of_committed_results():
    """The last number of each, as it was before there were other heads than the next token's.

    Draws are exact; what is made of them, a logarithm and a root, may differ by an eps or two.
    """
    model = arch.Backbone(
        ["s4d", "attention"],
        16,
        num_layers=2,
        vocab_size=50,
        max_length=16,
        channel_mixer="mlp",
        position_embedding=True,
        rngs=nnx.Rngs(0),
    )
    (s4d,), (attention,) = model.runs
    expected = [
        (model.embedding, -0.013182335533201694),
        (model.position_embedding, 0.016637131571769714),
        (s4d.channel_mixer.down.kernel, -0.018080780282616615),
        (s4d.mixer.out.kernel, -0.09257405996322632),
        (s4d.mixer.ssm.C, -0.9924710988998413),
        (s4d.mixer.ssm.log_step, -2.4040474891662598),
        (attention.mixer.query.kernel, -0.11949476599693298),
        (attention.channel_mixer.up.kernel, 0.10242544114589691),
    ]
    for parameter, last in expected:
        np.testing.assert_allclose(parameter[...].ravel()[-1], last, rtol=1e-6)


class TestLearnedPositions:
    """There are 16."""

    @pytest.fixture
    def model(self):
        return build("gla", position_embedding=True)

    def test_a_state_for_more_tokens_is_refused(self, model):
        model.initial_state(1, 16)
        with pytest.raises(ValueError, match="max_length is 17, expected at most the 16 learned"):
            model.initial_state(1, 17)
        build("gla").initial_state(1, 17)

    def test_a_longer_sequence_is_refused(self, model):
        ids = jnp.zeros((1, 17), int)
        with pytest.raises(ValueError, match="length is 17, expected at most the 16 learned"):
            model(ids)
        state, _ = model.extend(model.initial_state(1, 16), ids[:, :10])
        with pytest.raises(ValueError, match="length is 17, expected at most the 16 learned"):
            model.extend(state, ids[:, :7])

    def test_past_the_last_one_a_traced_position_gives_nan(self, model):
        extend = jax.jit(lambda m, s, ids: m.extend(s, ids))
        ids, state = jnp.zeros((1, 8), int), model.initial_state(1, 16)
        for finite in (True, True, False):
            state, y = extend(model, state, ids)
            assert np.all(np.isfinite(y)) == finite

    def test_parts_of_packed_rows_are_refused(self, model):
        context = arch.Context(segment_ids=jnp.ones((1, 4), int))
        with pytest.raises(ValueError, match=r"context\.segment_ids are given to extend"):
            model.extend(model.initial_state(1, 4), jnp.zeros((1, 4), int), context)
