"""Permutations: P-values below 1e-4 fail; keys are fixed, so that a test passes always or never."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tasks.order import epoch_and_position, permuted

P_MIN = 1e-4


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 1024, 1025, 4097])
def test_is_a_bijection(size):
    permute = jax.jit(jax.vmap(lambda key: permuted(key, jnp.arange(size), size)))
    images = np.asarray(permute(jax.random.split(jax.random.key(size), 5)))
    assert images.dtype == np.int32
    np.testing.assert_array_equal(np.sort(images, axis=1), np.tile(np.arange(size), (5, 1)))
    if size >= 1000:
        # Two random permutations agree at about one place, at 20 with probability 1/20!.
        for a, b in itertools.combinations([np.arange(size), *images], 2):
            assert np.sum(a == b) < 20


def test_is_pointwise():
    permute = jax.jit(lambda index: permuted(jax.random.key(3), index, 100))
    together = permute(jnp.arange(100).reshape(4, 25))
    apart = [int(permute(i)) for i in range(100)]
    assert together.shape == (4, 25)
    np.testing.assert_array_equal(together.reshape(-1), apart)


@pytest.mark.parametrize("size", [3, 10, 100])
def test_images_are_uniform(size):
    """Over keys, every index goes everywhere equally often, and neighbours go there independently.

    A finite family of permutations is not exactly uniform; it must pass for it over 20,000 keys.
    """
    keys = jax.random.split(jax.random.key(size), 20_000)
    images = np.asarray(jax.jit(jax.vmap(lambda k: permuted(k, jnp.arange(size), size)))(keys))
    for index in (0, size // 2, size - 1):
        counts = np.bincount(images[:, index], minlength=size)
        assert scipy.stats.chisquare(counts).pvalue > P_MIN
    steps = (images[:, 1] - images[:, 0]) % size  # 1 … size − 1, equally often
    assert scipy.stats.chisquare(np.bincount(steps, minlength=size)[1:]).pvalue > P_MIN


def test_three_things_take_all_six_orders():
    keys = jax.random.split(jax.random.key(0), 12_000)
    images = np.asarray(jax.vmap(lambda k: permuted(k, jnp.arange(3), 3))(keys))
    _, counts = np.unique(images, axis=0, return_counts=True)
    assert len(counts) == 6
    assert scipy.stats.chisquare(counts).pvalue > P_MIN


@pytest.mark.parametrize(
    ("batch_size", "size"),
    [(1, 1), (7, 3), (3, 7), (512, 100_000), (512, 2**30), (100_003, 99_991)],
)
def test_epoch_and_position_do_not_overflow(batch_size, size):
    function = jax.jit(epoch_and_position, static_argnums=(1, 2))
    for step in (0, 1, 2, 12_345, 1_000_003, 2**31 - 1):
        # Only the number of epochs itself must fit.
        if (step + 1) * batch_size // size < 2**31:
            index = step * batch_size + np.arange(batch_size, dtype=object)
            epoch, position = function(step, batch_size, size)
            np.testing.assert_array_equal(epoch, (index // size).astype(np.int64))
            np.testing.assert_array_equal(position, (index % size).astype(np.int64))
