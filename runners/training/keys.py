"""Random keys of a trial, one for each purpose, from its seed."""

import jax

_PURPOSES = ("init", "data", "dropout")


def trial_key(seed: jax.Array, purpose: str) -> jax.Array:
    """Independent keys for a trial's initial parameters ("init"), "data" and "dropout"."""
    return jax.random.fold_in(jax.random.key(seed), _PURPOSES.index(purpose))


def data_key(seed: jax.Array) -> jax.Array:
    """The key of a trial's training examples and of their order."""
    return trial_key(seed, "data")
