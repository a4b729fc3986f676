"""MoM as a loop over time and memories in float64; its router, its load, what stays untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D, H, M = 2, 23, 32, 2, 5
RULES = ("linear", "gla", "gated_delta")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def float64(mixer):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)


def update(rule, p, S, x, k, v, q):
    """(state [H, K, V], read-out [H, V]) of one memory for a token that is routed to it."""
    k, v = (y.reshape(H, -1) for y in (k @ p.key.kernel[...], v @ p.value.kernel[...]))
    if rule == "gated_delta":
        k, v = silu(k), silu(v)
        k = k / np.sqrt(np.sum(k**2, -1, keepdims=True) + 1e-6)
        step = np.log1p(np.exp(x @ p.decay.step.kernel[...] + p.decay.step_bias[...]))
        alpha = np.exp(-step * np.exp(p.decay.A_log[...]))
        beta = sigmoid(x @ p.beta.kernel[...])
        for h in range(H):
            keep = np.eye(len(k[h])) - beta[h] * np.outer(k[h], k[h])
            S[h] = alpha[h] * keep @ S[h] + beta[h] * np.outer(k[h], v[h])
        return S
    if rule == "gla":
        logits = x @ p.decay_down.kernel[...] @ p.decay_up.kernel[...] + p.decay_up.bias[...]
        S = sigmoid(logits).reshape(H, -1, 1) ** (1 / 16) * S
    return S + k[..., None] * v[:, None]


def reference(mixer, rule, x, top_k, segment_ids=None, shared=True):
    """Token by token, memory by memory."""
    p = float64(mixer)
    memories = [jax.tree.map(lambda a, m=m: a[m], p.memories) for m in range(M + shared)]
    ys = np.zeros_like(x)
    for b in range(B):
        S, first = [np.zeros((H, D // H, D // H)) for _ in memories], 0
        for t in range(T):
            if segment_ids is not None and t and segment_ids[t] != segment_ids[t - 1]:
                S, first = [np.zeros_like(s) for s in S], t
            inputs = [x[b, t]] * 3
            for i, conv in enumerate(p.convs):
                window = [x[b, t - j] if t - first >= j else 0 * x[b, t] for j in range(4)]
                inputs[i] = np.sum(conv.kernel[...] * np.stack(window), 0) + conv.bias[...]
            q = (inputs[0] @ p.query.kernel[...]).reshape(H, -1)
            if rule == "gated_delta":
                q = silu(q)
                q = q / np.sqrt(np.sum(q**2, -1, keepdims=True) + 1e-6)
            else:
                q = q / np.sqrt(D // H)
            logits = x[b, t] @ p.router.kernel[...]
            scores = np.exp(logits) / np.sum(np.exp(logits))
            chosen = np.argsort(-scores)[:top_k]
            weights = {m: scores[m] / np.sum(scores[chosen]) for m in chosen}
            if shared:
                weights[M] = 1.0
            mixed = np.zeros_like(S[0])
            for m, weight in weights.items():
                S[m] = update(rule, memories[m], S[m], x[b, t], inputs[1], inputs[2], q)
                mixed += weight * S[m]
            o = np.einsum("hk,hkv->hv", q, mixed)
            o = o / np.sqrt(np.mean(o**2, -1, keepdims=True) + 1e-5) * p.norm.scale[...]
            ys[b, t] = (o.ravel() * silu(x[b, t] @ p.gate.kernel[...])) @ p.out.kernel[...]
    return ys


def inputs(seed=0):
    return np.asarray(jax.random.normal(jax.random.key(seed), (B, T, D)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("conv_size", [None, 4])
def test_equals_the_loop_over_memories(build, rule, conv_size):
    mixer = build("mom", rule=rule, num_memories=M, num_heads=H, conv_size=conv_size)
    x, ids = inputs(), np.repeat([1, 2, 1], [7, 9, 7])
    context = arch.Context(segment_ids=np.broadcast_to(ids, (B, T)))
    expected = reference(mixer, rule, x.astype(np.float64), 2, ids)
    actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
    # Sums of at most 32 terms in seven stages, 7 · √32 · 6e-8 = 2.4e-6 of their terms; where o is
    # small its norm magnifies that, tenfold at most in 46 tokens. No two scores of these tokens are
    # so near that rounding would send one elsewhere: the whole output would be off.
    np.testing.assert_allclose(actual, expected, atol=2.5e-5 * np.abs(expected).max())


@pytest.mark.parametrize("top_k", [1, 5])
def test_without_a_shared_memory(build, top_k):
    options = {"num_memories": M, "num_heads": H, "shared_memory": False, "top_k": top_k}
    mixer = build("mom", **options)
    x = inputs()
    expected = reference(mixer, "gated_delta", x.astype(np.float64), top_k, shared=False)
    actual = jax.jit(lambda m, x: m(x))(mixer, x)
    np.testing.assert_allclose(actual, expected, atol=2.5e-5 * np.abs(expected).max())


@pytest.mark.parametrize("rule", RULES)
def test_a_memory_that_a_token_is_not_routed_to_keeps_every_bit(build, rule):
    mixer = build("mom", rule=rule, num_memories=M, num_heads=H)
    extend = jax.jit(lambda m, s, x: m.extend(s, x))
    before, _ = extend(mixer, mixer.initial_state(B, T), inputs())
    token = inputs(1)[:, :1]
    after, _ = extend(mixer, before, token)
    routed = np.asarray(mixer.route(token)[2])[:, 0]
    assert np.all(routed.sum(-1) == 2)
    for b in range(B):
        for m in range(M + 1):
            same = np.array_equal(after["memory"]["M"][b, m], before["memory"]["M"][b, m])
            assert same == (m < M and not routed[b, m])


def auxiliary_loss(mixer, x):
    """The mixer's own loss, of a copy that is built here."""
    mixer(x, arch.Context(training=True))
    (loss,) = jax.tree.leaves(nnx.state(mixer, arch.AuxiliaryLoss))
    return loss


def test_the_load_balancing_loss(build):
    mixer = build("mom", num_memories=M, num_heads=H, balance=0.3)
    x = inputs()
    logits = x.astype(np.float64) @ float64(mixer).router.kernel[...]
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    routed = scores >= np.sort(scores, -1)[..., -2:-1]
    expected = 0.3 * M * np.sum(routed.mean((0, 1)) * scores.mean((0, 1)))
    # A mean of 46 scores, each of a softmax of sums of 32 terms: below 46 · 6e-8.
    np.testing.assert_allclose(jax.jit(auxiliary_loss)(mixer, x), expected, rtol=3e-6)


def test_an_even_load_has_the_least_loss(build):
    """Scores all alike give Σ f_m P_m = top_k / M; two memories that take all give twice that."""
    mixer = build("mom", num_memories=4, num_heads=H, balance=1.0)
    x = np.ones((1, 4, D), np.float32)

    def loss(kernel):
        mixer.router.kernel[...] = jnp.asarray(kernel, jnp.float32)
        return float(auxiliary_loss(mixer, x))

    kernel = np.zeros((D, 4))
    assert loss(kernel) == pytest.approx(2.0)
    kernel[:, 1:3] = 1.0
    assert loss(kernel) == pytest.approx(4.0)


def test_only_training_sets_the_loss(build):
    mixer = build("mom", num_memories=M, num_heads=H)
    x = inputs()
    for context in (None, arch.Context(rng=jax.random.key(0))):
        mixer(x, context)
        assert not jax.tree.leaves(nnx.state(mixer, arch.AuxiliaryLoss))
    closed_over = jax.jit(lambda x: mixer(x))  # a call that does not train changes no mixer
    np.testing.assert_allclose(closed_over(x), mixer(x), atol=1e-5)


def test_the_state_does_not_grow(build):
    mixer = build("mom", num_memories=M, num_heads=H)
    state = mixer.initial_state(B, T)
    assert state["memory"]["M"].shape == (B, M + 1, H, D // H, D // H)
    assert arch.state_bytes(mixer, 8) == arch.state_bytes(mixer, 1_000_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_memories": 0}, "num_memories is 0, expected at least 1"),
        ({"top_k": 0}, "top_k is 0, expected at least 1"),
        ({"num_memories": 2, "top_k": 3}, "top_k is 3, expected at most num_memories = 2"),
        ({"rule": "delta"}, "rule is 'delta', expected one of 'linear', 'gla', 'gated_delta'"),
        ({"num_heads": 5}, "num_heads is 5, expected a divisor of d_model 32"),
        ({"balance": -1.0}, "balance is -1.0, expected a number of at least 0"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        arch.build("mom", D, rngs=nnx.Rngs(0), **options)
