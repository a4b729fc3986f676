"""Random selections without replacement, of which nothing larger than the result is stored."""

import jax
import jax.numpy as jnp
import numpy as np


def draw_distinct(key: jax.Array, n: int, size: int) -> jax.Array:
    """n distinct numbers from 0 … size − 1, uniform over ordered selections, in O(n²) compares.

    The shuffle of Fisher and Yates on a virtual array a = (0, 1, …, size − 1), of which nothing is
    stored: at step i it draws j_i uniformly from i … size − 1, swaps a[i] with a[j_i], and puts out
    the new a[i]. What stands at place p before step i was put there by the last swap t < i with
    j_t = p, which moved a[t] there; without such a swap it is p still. Only the a[t] must be known:
    each equals t, or the a[t'] of the last swap t' < t with j_t' = t. Following these links leads
    to the number, and doubling what is followed takes log₂ n rounds.

    Returns:
      [n] int32.
    """
    i = jnp.arange(n)
    j = jax.random.randint(key, (n,), i, size)
    earlier = i[None, :] < i[:, None]

    def last_swap(place: jax.Array) -> jax.Array:
        """For each step the last swap before it that moved something to `place`; −1 if none."""
        return jnp.max(jnp.where(earlier & (j[None, :] == place[:, None]), i[None, :], -1), axis=1)

    link = last_swap(i)
    moved = jnp.where(link < 0, i, link)
    for _ in range((n - 1).bit_length()):
        moved = moved[moved]
    source = last_swap(j)
    return jnp.where(source < 0, j, moved[source])


def draw_gaps(key: jax.Array, n: int, slots: int, power_a: float) -> jax.Array:
    """n distinct gaps from 0 … slots − 1, drawn one after another with p(i) ∝ i^(a−1), i = gap + 1.

    The n largest of log p(i) + G_i, with independent Gumbel G_i and in descending order, have the
    law of draws without replacement, each from what is left in proportion to p (Yellott 1977).

    Returns:
      [n] int32, in the order in which they were drawn.
    """
    log_p = (power_a - 1) * np.log(np.arange(1, slots + 1))
    # The full-resolution noise: the default one has 23 bits, and ties would favour early slots.
    noise = jax.random.gumbel(key, (slots,), jnp.float32, mode="highest")
    return jax.lax.top_k(noise + log_p.astype(np.float32), n)[1]


def draw_except(key: jax.Array, length: int, size: int, excluded: jax.Array) -> jax.Array:
    """Independent numbers, uniform on 0 … size − 1 without the n distinct `excluded` ones.

    The r-th number that is allowed is r plus the count of excluded ones below it; with the excluded
    in ascending order e_0 < e_1 < …, that is the count of i with e_i − i ≤ r.

    Returns:
      [length] int32.
    """
    n = excluded.shape[0]
    rank = jax.random.randint(key, (length,), 0, size - n)
    return rank + jnp.searchsorted(jnp.sort(excluded) - jnp.arange(n), rank, side="right")
