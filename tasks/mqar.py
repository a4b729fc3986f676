"""Multi-query associative recall (Arora et al. 2023, "Zoology", arXiv 2312.04927, app. E).

A sequence opens with n key–value pairs; later each key comes back once, and the model must answer
with its value. With V = 12, n = 2, T = 16 and filler 0:

    inputs   2 8 4 7 0 0 4 0 0 0 0 0 2 0 0 0
    targets  . . . . . . 7 . . . . . 8 . . .

Letters: B batch, T time, n key–value pairs (and so P = n queries), V vocabulary, S slots.
"""

import collections
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tasks.batch import SPLITS, Batch, Split
from tasks.generators.draws import draw_distinct, draw_except, draw_gaps
from tasks.interface import Part, Task
from tasks.metrics import properties
from tasks.options import flag, number, whole
from tasks.registry import register

_ENDLESS = 10_000_000  # an endless supply counts as this many examples; the paper shows 6.4 million
_CONTEXTS_PER_PAIR = 20  # a risk of 1 in 20 that any two examples of different splits share one
_GUESSED_EXAMPLES = 8_192  # for "guess from position": a standard error below 0.01


def _right_by_position(length: int, n: int, power_a: float) -> float:
    """The share of queries that a guess by their position alone answers.

    The pair to guess at each slot is taken from one half of the examples that are drawn here, with
    a fixed key, and judged on the other, so that it does not profit from having seen them.
    """
    slots = (length - 2 * n) // 2
    # The generator is named, so that the score is the same under another default.
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), _GUESSED_EXAMPLES)
    gaps = np.asarray(jax.vmap(lambda key: draw_gaps(key, n, slots, power_a))(keys))
    pairs = np.broadcast_to(np.arange(n), gaps.shape)
    seen, judged = np.zeros((2, slots, n), int)
    half = _GUESSED_EXAMPLES // 2
    np.add.at(seen, (gaps[:half], pairs[:half]), 1)
    np.add.at(judged, (gaps[half:], pairs[half:]), 1)
    return float(judged[np.arange(slots), seen.argmax(axis=1)].sum() / judged.sum())


@register("mqar")
class MQAR(Task):
    """Multi-query associative recall, in one shape or in mixtures of several.

    Keys are drawn without replacement from [1, V/2), values from [V/2, V). The context k₁v₁k₂v₂… is
    followed by S = (T − 2n)/2 slots of two tokens; gap g, drawn without replacement with p(g) ∝
    (g + 1)^(a−1), puts a key at 2n + 2g, and there its value is the target. All else is filler.

    The sizes are given either in the simple form (`length`, `num_kv_pairs`, `num_*_examples`), or
    as mixtures (`train`, `validation` and `test` together), never both.

    Args:
      vocab_size: V, even.
      length: T, even and at least 4n; 64 unless told.
      num_kv_pairs: n; 4 unless told.
      num_train_examples: size of the training set; None is an endless supply.
      num_validation_examples: 3000 unless told.
      num_test_examples: 3000 unless told.
      train: a mixture, (T, n, number of examples or None for an endless supply) per part.
      validation: likewise, all of them finite.
      test: likewise, all of them finite.
      random_non_queries: filler is random tokens, never a key of the same sequence, instead of 0.
      power_a: a; at 1 the gaps are uniform, the smaller the shorter.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 8192,
        length: int | None = None,
        num_kv_pairs: int | None = None,
        num_train_examples: int | None = None,
        num_validation_examples: int | None = None,
        num_test_examples: int | None = None,
        train: Sequence[Sequence[int | None]] | None = None,
        validation: Sequence[Sequence[int]] | None = None,
        test: Sequence[Sequence[int]] | None = None,
        random_non_queries: bool = False,
        power_a: float = 0.01,
    ):
        self.vocab_size = _vocab_size(vocab_size)
        self.power_a = number("power_a", power_a)
        self.random_non_queries = flag("random_non_queries", random_non_queries)

        mixtures = {"train": train, "validation": validation, "test": test}
        simple = {
            "length": length,
            "num_kv_pairs": num_kv_pairs,
            "num_train_examples": num_train_examples,
            "num_validation_examples": num_validation_examples,
            "num_test_examples": num_test_examples,
        }
        given = [name for name, mixture in mixtures.items() if mixture is not None]
        if not given:
            length = 64 if length is None else length
            n = 4 if num_kv_pairs is None else num_kv_pairs
            counts = (
                num_train_examples,
                3000 if num_validation_examples is None else num_validation_examples,
                3000 if num_test_examples is None else num_test_examples,
            )
            mixtures = {
                split: ((length, n, count),) for split, count in zip(SPLITS, counts, strict=True)
            }
        elif clash := [name for name, size in simple.items() if size is not None]:
            raise ValueError(
                f"{given[0]}=… and {clash[0]}={simple[clash[0]]!r} exclude each other: "
                f"give the sizes in {given[0]}, or leave it out"
            )
        elif missing := [name for name in mixtures if name not in given]:
            raise ValueError(
                f"{given[0]} is given but {missing[0]} is not: a mixture needs train, validation "
                "and test, each as ((length, num_kv_pairs, num_examples), …)"
            )
        self._sizes = {split: self._mixture(split, mixtures[split]) for split in SPLITS}
        self._refuse_shared_contexts()
        self.max_length = max(part.length for split in SPLITS for part in self.parts(split))

    def parts(self, split: Split) -> tuple[Part, ...]:
        return tuple(
            Part(properties(length=T, num_kv_pairs=n), T, count)
            for T, n, count in self._sizes[split]
        )

    def example(self, key: jax.Array, split: Split = "train", part: int = 0) -> Batch:
        T, n, _ = self._sizes[split][part]
        V = self.vocab_size
        key_k, key_v, key_gap, key_filler = jax.random.split(key, 4)
        k = 1 + draw_distinct(key_k, n, V // 2 - 1)
        v = V // 2 + draw_distinct(key_v, n, V // 2)
        positions = 2 * n + 2 * draw_gaps(key_gap, n, (T - 2 * n) // 2, self.power_a)
        if self.random_non_queries:
            filler = draw_except(key_filler, T - 2 * n, V, k)
        else:
            filler = jnp.zeros(T - 2 * n, jnp.int32)
        context = jnp.stack([k, v], axis=1).reshape(2 * n)
        inputs = jnp.concatenate([context, filler]).at[positions].set(k, unique_indices=True)
        return Batch(inputs, positions, targets=v, weights=jnp.ones(n))

    def reference_scores(self) -> dict[str, float]:
        """Scores without association: three trivial predictors below, the oracle above.

        "guess among values in context" is right for N queries of N examples with n queries each.
        "guess from position" gains from short gaps being given out first, to early pairs; it is
        the first thing that a mixer learns, before it looks up keys.
        """
        sizes = [(n, count) for _, n, count in self._sizes["test"]]
        queries = sum(n * count for n, count in sizes)
        by_position = sum(
            n * count * _right_by_position(T, n, self.power_a)
            for T, n, count in self._sizes["test"]
        )
        return {
            "chance": 2 / self.vocab_size,
            "guess among values in context": sum(count for _, count in sizes) / queries,
            "guess from position": by_position / queries,
            "oracle": 1.0,
        }

    def reference_notes(self) -> dict[str, str]:
        return {
            "oracle": "answers every query",
            "guess from position": (
                "names the value of the pair that is asked for most often at this position, "
                "whatever the key"
            ),
            "guess among values in context": "names one of the values in this sequence at random",
            "chance": "names one of all values at random",
        }

    def _mixture(self, split: Split, mixture: Any) -> tuple[tuple[int, int, int | None], ...]:
        """The parts (T, n, number of examples) of a split, checked."""
        try:
            sizes = tuple((length, n, count) for length, n, count in mixture)
        except (TypeError, ValueError):
            sizes = ()
        if not sizes:
            raise ValueError(
                f"{split}={mixture!r}: expected ((length, num_kv_pairs, num_examples), …)"
            )
        checked = tuple(self._part(split, *size) for size in sizes)
        if repeated := [s for s, c in collections.Counter(c[:2] for c in checked).items() if c > 1]:
            raise ValueError(
                f"{split} has two parts of length {repeated[0][0]} with {repeated[0][1]} pairs: "
                "add their examples up in one"
            )
        return checked

    def _part(self, split: Split, length: Any, n: Any, count: Any) -> tuple[int, int, int | None]:
        length, n = whole("length", length), whole("num_kv_pairs", n)
        if count is not None or split != "train":  # only training can be endless
            count = whole(f"num_examples of {split}", count)
        if length % 2:
            raise ValueError(f"length={length}: expected an even number, such as {length + 1}")
        if 4 * n > length:
            raise ValueError(
                f"num_kv_pairs={n} needs length >= {4 * n} (two tokens for each pair, two for its "
                f"query), got length={length}: at most {length // 4} pairs fit"
            )
        if n > self.vocab_size // 2 - 1:
            raise ValueError(
                f"num_kv_pairs={n} needs as many distinct keys, but vocab_size={self.vocab_size} "
                f"has {self.vocab_size // 2 - 1}: take vocab_size >= {2 * n + 2}"
            )
        return length, n, count

    def _refuse_shared_contexts(self) -> None:
        """Raises ValueError if chance would put the same context into two splits.

        The splits draw independently, so they are disjoint only as far as the contexts of n pairs
        outnumber the examples: there are C = (V/2 − 1)!/(V/2 − 1 − n)! · (V/2)!/(V/2 − n)! of them,
        equally likely, and the expected number of pairs of examples from different splits that
        share one, Σ N_s N_s' / C, bounds the probability that any do (Boole). Contexts, not whole
        sequences: a model that has seen a context in training can answer from memory.
        """
        half = self.vocab_size // 2
        for n in sorted({n for sizes in self._sizes.values() for _, n, _ in sizes}):
            counts = [
                sum(_ENDLESS if c is None else c for _, m, c in self._sizes[split] if m == n)
                for split in SPLITS
            ]
            pairs = sum(a * b for i, a in enumerate(counts) for b in counts[:i])
            contexts = math.perm(half - 1, n) * math.perm(half, n)
            if contexts < _CONTEXTS_PER_PAIR * pairs:  # in integers: n = 256 exceeds every float
                raise ValueError(
                    f"vocab_size={self.vocab_size} with num_kv_pairs={n} has only {contexts:.2g} "
                    f"contexts, but splits of {' + '.join(f'{c:,}' for c in counts)} examples are "
                    f"disjoint only with {_CONTEXTS_PER_PAIR * pairs:.2g} or more: take a larger "
                    "vocab_size, more pairs, or fewer examples (endless training counts as "
                    f"{_ENDLESS:,})"
                )


def _vocab_size(value: Any) -> int:
    V = whole("vocab_size", value)
    if V < 4 or V % 2:
        raise ValueError(
            f"vocab_size={V}: expected an even number of at least 4 (0, then keys, then as many "
            f"values), such as {max(4, V + V % 2)}"
        )
    return V
