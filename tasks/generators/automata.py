"""Random deterministic automata whose languages are closed under prefixes: every state accepts.

Letters: S states at most, K edges a state at most, A symbols of the alphabet. An automaton is its
edges: state s has `degree[s]` of them, and edge k < degree[s] reads `symbols[s, k]` and leads to
`targets[s, k]`, in ascending order of the symbols. State 0 is the start.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tasks.generators.draws import draw_distinct
from tasks.options import bounds


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Automaton:
    """Edges of at most S states; what lies beyond `degree` means nothing and is 0.

    Attributes:
      degree: [S] int32, 0 for a state that does not exist.
      symbols: [S, K] int32.
      targets: [S, K] int32.
    """

    degree: jax.Array
    symbols: jax.Array
    targets: jax.Array

    @property
    def exists(self) -> jax.Array:
        """[S, K] bool: which edges there are."""
        return jnp.arange(self.symbols.shape[1]) < self.degree[:, None]


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Sizes of random automata; all bounds are inclusive.

    Attributes:
      num_symbols: A, the number of symbols in all.
      states: fewest and most states before minimisation.
      symbols: fewest and most symbols of the alphabet that a language uses.
      edges: fewest and most edges of a state.
    """

    num_symbols: int
    states: tuple[int, int]
    symbols: tuple[int, int]
    edges: tuple[int, int]

    def __post_init__(self):
        for name, least in (("states", 2), ("symbols", 1), ("edges", 1)):
            object.__setattr__(self, name, bounds(name, getattr(self, name), least))
        if self.symbols[1] > self.num_symbols:
            raise ValueError(
                f"symbols={self.symbols}: expected at most num_symbols={self.num_symbols}"
            )
        if self.edges[1] > self.symbols[0]:
            raise ValueError(
                f"edges={self.edges} with symbols={self.symbols}: edges of a state bear distinct "
                f"symbols, so that a language of {self.symbols[0]} symbols allows at most as many "
                "edges: take more symbols or fewer edges"
            )
        if self.edges[0] > self.states[0] - 1:
            raise ValueError(
                f"edges={self.edges} with states={self.states}: edges of a state lead to "
                f"distinct other states, of which there may be only {self.states[0] - 1}: take "
                "more states or fewer edges"
            )

    def draw(self, key: jax.Array) -> Automaton:
        """A random automaton (Akyürek et al. 2024, arXiv 2401.12973, section 3), not yet minimal.

        The numbers of states, of symbols and of each state's edges are uniform within their bounds
        (edges also within the number of other states); edges of a state bear distinct symbols and
        lead to distinct other states.
        """
        S, K = self.states[1], self.edges[1]
        keys = jax.random.split(key, 6)
        n = jax.random.randint(keys[0], (), self.states[0], S + 1)
        a = jax.random.randint(keys[1], (), self.symbols[0], self.symbols[1] + 1)
        used = draw_distinct(keys[2], self.symbols[1], self.num_symbols)
        most = jnp.minimum(K, n - 1)
        degree = jax.random.randint(keys[3], (S,), self.edges[0], most + 1)
        degree = jnp.where(jnp.arange(S) < n, degree, 0)
        # The K best of random scores among what is allowed are distinct and uniform.
        score = jax.random.uniform(keys[4], (S, self.symbols[1]))
        _, place = jax.lax.top_k(jnp.where(jnp.arange(self.symbols[1]) < a, score, -1), K)
        score = jax.random.uniform(keys[5], (S, S))
        other = (jnp.arange(S) != jnp.arange(S)[:, None]) & (jnp.arange(S) < n)
        _, targets = jax.lax.top_k(jnp.where(other, score, -1), K)
        return _tidy(degree, used[place], targets)


def _tidy(degree: jax.Array, symbols: jax.Array, targets: jax.Array) -> Automaton:
    """Edges in ascending order of their symbols, and zeros where there is none."""
    exists = jnp.arange(symbols.shape[1]) < degree[:, None]
    last = jnp.iinfo(jnp.int32).max
    order = jnp.argsort(jnp.where(exists, symbols, last), axis=1)
    symbols, targets = (jnp.take_along_axis(a, order, axis=1) for a in (symbols, targets))
    return Automaton(degree, *(jnp.where(exists, a, 0) for a in (symbols, targets)))


def canonical(automaton: Automaton) -> Automaton:
    """The minimal automaton of the language, its states in the order of a breadth-first search.

    Two automata have the same language if and only if their canonical forms are equal, number by
    number (Myhill–Nerode). States are told apart by refinement (Moore 1956): at first all are
    taken for one, then those whose edges bear other symbols, or lead to states already told apart,
    are separated, as often as there are states.
    """
    S, K = automaton.symbols.shape
    degree, symbols, targets, exists = (
        automaton.degree,
        automaton.symbols,
        automaton.targets,
        automaton.exists,
    )
    alike = (degree[:, None] == degree) & jnp.all(symbols[:, None] == symbols, axis=-1)

    def refine(_: int, same: jax.Array) -> jax.Array:
        led = same[targets[:, None], targets[None, :]]  # [S, S, K]
        return same & jnp.all(led | ~exists[:, None], axis=-1)

    same = jax.lax.fori_loop(0, S, refine, alike)
    leader = jnp.argmax(same, axis=1)  # the first state of each class
    targets = leader[targets]

    def visit(i: int, found: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Numbers the unseen targets of the i-th state found, in the order of their symbols."""
        order, number, count = found
        state = order[i]
        goal, real = targets[state], exists[state] & (i < count)
        again = jnp.any((goal[:, None] == goal) & jnp.tri(K, k=-1, dtype=bool), axis=1)
        new = real & (number[goal] == S) & ~again
        place = jnp.where(new, count + jnp.cumsum(new) - 1, S)  # S is out of bounds: dropped
        order = order.at[place].set(goal, mode="drop")
        number = number.at[jnp.where(new, goal, S)].set(place, mode="drop")
        return order, number, count + jnp.sum(new)

    start = leader[0]
    order, number, count = jax.lax.fori_loop(
        0,
        S,
        visit,
        (jnp.zeros(S, jnp.int32).at[0].set(start), jnp.full(S, S).at[start].set(0), 1),
    )
    present = jnp.arange(S) < count
    degree = jnp.where(present, degree[order], 0)
    return _tidy(degree, symbols[order], number[targets[order]])


def fingerprint(automaton: Automaton) -> jax.Array:
    """A hash of the language, a uint32: equal languages have equal ones, whatever their automata.

    That of a state is one of the words that can be read from it: at first all states have the same,
    and in each round a state's becomes a hash of the set of its symbols, each with what its target
    had. After n rounds it depends on the words of up to n symbols; automata of S states whose
    languages differ do so on one of at most 2 S.
    """
    symbols = _scramble(automaton.symbols.astype(jnp.uint32) + jnp.uint32(1))

    def read(_: int, h: jax.Array) -> jax.Array:
        edges = _scramble(symbols + jnp.uint32(0x9E3779B9) * h[automaton.targets])
        return _scramble(jnp.sum(jnp.where(automaton.exists, edges, 0), axis=1, dtype=jnp.uint32))

    S = automaton.degree.shape[0]
    return jax.lax.fori_loop(0, 2 * S, read, jnp.ones(S, jnp.uint32))[0]


def _scramble(h: jax.Array) -> jax.Array:
    """Every bit of the result depends on every bit: the finaliser of MurmurHash3 (Appleby 2008)."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
