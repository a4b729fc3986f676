"""Token attribution: norms of ∂y_t/∂x_s.

Letters: B batch, T time, D model width, L layers, H heads.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer
from arch.model.backbone import Backbone
from arch.model.block import Block
from arch.nn.layers import Linear

_PROBES = 8  # random directions: norms have a relative error of about 1 / √(2 · 8)


def mixing_matrix(
    mixer: SequenceMixer, x: jax.Array, context: Context, key: jax.Array
) -> jax.Array:
    """Estimate M[t, s] = ‖∂y_t / ∂x_s‖ (Frobenius) for one sequence, [T, T].

    Since E (vᵀ J)² = ‖J‖² for v ~ N(0, I), it is the root mean square over `_PROBES` directions
    drawn from `key`. For softmax attention and s < t it is large exactly where the weight is: y_t
    depends on x_s through its key and value, and both paths are proportional to the weight.

    Args:
      mixer: any.
      x: [1, T, D], its input.
      context: of the same sequence.
    """
    directions = jax.random.normal(key, (_PROBES, x.shape[-1]))

    def seen(x: jax.Array) -> jax.Array:
        return mixer(x, context)[0] @ directions.T  # [T, _PROBES]

    J = jax.jacrev(seen)(x)[:, :, 0]  # [T, _PROBES, T, D]
    return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(J), axis=-1), axis=1))


def heads(mixer: SequenceMixer) -> Iterator[SequenceMixer]:
    """Yield, for each head, a copy of the mixer in which only that head reaches the output.

    This needs a last projection `out` that maps the concatenated `num_heads` heads linearly; any
    other mixer counts as one head.
    """
    count, out = getattr(mixer, "num_heads", 1), getattr(mixer, "out", None)
    if count == 1 or not isinstance(out, Linear) or out.kernel.shape[0] % count:
        yield mixer
        return
    rows = jnp.arange(out.kernel.shape[0]) // (out.kernel.shape[0] // count)
    for head in range(count):
        alone = nnx.clone(mixer)
        alone.out.kernel = nnx.Param(jnp.where(rows[:, None] == head, out.kernel[...], 0))
        yield alone


def layers(model: Backbone, tokens: jax.Array) -> Iterator[tuple[Block, jax.Array]]:
    """Yield every block of a model with its input [B, T, D], for tokens [B, T]."""
    x, context = model.embed(tokens), Context(tokens=tokens)
    forward = jax.jit(lambda block, x: block(x, context))
    for run in model.runs:
        repeats = jax.tree.leaves(run)[0].shape[0]
        for i in range(repeats):
            for stacked in run:
                block = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
                yield block, x
                x = forward(block, x)
