"""In-context language learning (Akyürek et al. 2024, arXiv 2401.12973): each sequence is made of
words of a regular language of its own, and the model must find out the language while it reads.

    inputs   | d a d | a d | d a c …
    targets  d a d . a d . d a c a …

A language is that of a random automaton in which every state accepts; `|` separates the words and
is never a target, for where a word ends is not the language's business.

Letters: B batch, T time, V vocabulary (the symbols, then the separator), W words, A symbols.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from tasks.batch import Batch, Split
from tasks.generators import automata, ngrams
from tasks.interface import Average, Part, Task, weighted
from tasks.metrics import LOSS, Metric, Slice, properties
from tasks.options import bounds, whole
from tasks.registry import register

# Of eight residues of the language's fingerprint, those that belong to each split.
_SHARES = {"train": (0, 1, 2, 3, 4, 5), "validation": (6,), "test": (7,)}
_NGRAMS = 3  # distances are measured to the predictors of order 1, …, _NGRAMS
_REFERENCE_BATCH = 25  # examples at a time: an n-gram predictor compares all T² pairs of tokens


@register("icll")
class ICLL(Task):
    """In-context learning of random regular languages, judged symbol by symbol.

    An automaton has S states and an alphabet of its own, each state edges with distinct symbols to
    distinct other states, taken with equal probability; all numbers uniform within their bounds.
    A sequence is W words, each a walk from the start state.

    A language belongs to the split that its fingerprint says, which is the same for all automata of
    that language: none can be in two of them. Equal languages are equal canonical automata
    (`tasks.generators.automata.canonical`).

    Args:
      num_symbols: A, of all languages together.
      states: fewest and most states of an automaton before minimisation.
      symbols: fewest and most symbols of one language.
      edges: fewest and most edges of a state; no state has more than there are other states.
      words: fewest and most words of a sequence.
      word_length: fewest and most symbols of a word.
      num_train_examples: size of the training set; None is an endless supply.
      num_validation_examples: 500 unless told.
      num_test_examples: 500 unless told, as published.

    Metrics: "validity", the share of positions at which the likeliest symbol is one that may come
    there; "tv", the total variation distance ½ Σ |p − p*| from the model's distribution to the
    true one, and "tv_1gram" … "tv_3gram", that to the predictors of `tasks.generators.ngrams`;
    "nll_gap", the mean of Σ p* log (p* / p), by how much the model's expected negative
    log-likelihood exceeds that of the true automaton, in nats. "…/words=w" is each of them where
    w whole words have been seen.
    """

    metric = Metric("validity")
    secondary_metrics = (
        LOSS,
        Metric("nll_gap", higher_is_better=False, unit="nats"),
        Metric("tv", higher_is_better=False),
    )

    def __init__(
        self,
        *,
        num_symbols: int = 18,
        states: Sequence[int] = (4, 12),
        symbols: Sequence[int] = (4, 18),
        edges: Sequence[int] = (1, 3),
        words: Sequence[int] = (10, 19),
        word_length: Sequence[int] = (1, 49),
        num_train_examples: int | None = None,
        num_validation_examples: int = 500,
        num_test_examples: int = 500,
    ):
        self.num_symbols = whole("num_symbols", num_symbols)
        self.distribution = automata.Distribution(
            self.num_symbols,
            states,
            symbols,
            edges,
        )
        self.words, self.word_length = bounds("words", words), bounds("word_length", word_length)
        self._counts = {
            "train": num_train_examples,
            "validation": whole("num_validation_examples", num_validation_examples),
            "test": whole("num_test_examples", num_test_examples),
        }
        if num_train_examples is not None:
            whole("num_train_examples", num_train_examples)
        self.vocab_size = self.num_symbols + 1
        self.max_length = self.words[1] * (self.word_length[1] + 1)

    def parts(self, split: Split) -> tuple[Part, ...]:
        name = properties(words=self.words[1], word_length=self.word_length[1])
        return (Part(name, self.max_length, self._counts[split]),)

    def language(self, key: jax.Array, split: Split) -> automata.Automaton:
        """A random automaton whose language belongs to a split; not yet minimal."""
        mine = jnp.asarray([r in _SHARES[split] for r in range(8)])

        def belongs(automaton: automata.Automaton) -> jax.Array:
            return mine[automata.fingerprint(automaton) % 8]

        def draw(attempt: jax.Array) -> automata.Automaton:
            return self.distribution.draw(jax.random.fold_in(key, attempt))

        def again(attempt_and_automaton: tuple) -> tuple[jax.Array, automata.Automaton]:
            attempt = attempt_and_automaton[0] + 1
            return attempt, draw(attempt)

        first = jnp.int32(0)
        return jax.lax.while_loop(lambda a: ~belongs(a[1]), again, (first, draw(first)))[1]

    def example(self, key: jax.Array, split: Split = "train", part: int = 0) -> Batch:
        T, separator = self.max_length, self.num_symbols
        keys = jax.random.split(key, 4)
        language = self.language(keys[0], split)
        words = jax.random.randint(keys[1], (), self.words[0], self.words[1] + 1)
        lengths = jax.random.randint(
            keys[2], (self.words[1],), self.word_length[0], self.word_length[1] + 1
        )
        # Each word is a walk from the start. Every number of edges divides the number of choices,
        # so that a remainder is uniform.
        choices = jax.random.randint(
            keys[3],
            (self.word_length[1], self.words[1]),
            0,
            math.lcm(*range(1, self.distribution.edges[1] + 1)),
        )

        def step(state: jax.Array, choice: jax.Array) -> tuple[jax.Array, tuple]:
            edge = choice % language.degree[state]
            return language.targets[state, edge], (language.symbols[state, edge], state)

        start = jnp.zeros(self.words[1], jnp.int32)
        _, (symbols, states) = jax.lax.scan(step, start, choices)
        # Place 0 holds a separator, and so does the one after each word; after the last there is
        # nothing else. Word w stands from 1 + ends[w − 1] on.
        ends = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(lengths + 1)])
        places = jnp.arange(T + 1)
        word = jnp.searchsorted(ends[1:], places, side="right")
        offset = places - 1 - ends[word]
        is_separator = (offset < 0) | (word >= words)
        tokens = jnp.where(is_separator, separator, symbols[offset, word])
        states = states[offset, word]
        # states[t] is the one in which token t is chosen: that of the prediction at t − 1.
        share = jnp.where(language.exists, 1 / jnp.maximum(language.degree[:, None], 1), 0)
        is_symbol = jax.nn.one_hot(language.symbols, self.vocab_size)
        truth = jnp.einsum("sk,skv->sv", share, is_symbol)
        return Batch(
            inputs=tokens[:-1],
            loss_positions=jnp.arange(T),
            targets=tokens[1:],
            weights=1.0 - is_separator[1:],
            truth=truth[states[1:]],
        )

    def metrics(self, logits: jax.Array, batch: Batch) -> dict[str, Average]:
        """ "loss" and the metrics of the class, over all positions and by the words seen."""
        log_p, truth = jax.nn.log_softmax(logits.astype(jnp.float32)), batch.truth
        p, legal = jnp.exp(log_p), truth > 0
        likeliest = log_p == jnp.max(log_p, axis=-1, keepdims=True)  # several only for n-grams
        values = {
            "validity": jnp.sum(likeliest & legal, -1) / jnp.sum(likeliest, -1),
            "tv": _total_variation(p, truth),
            "nll_gap": jnp.sum(jnp.where(legal, truth * (jnp.log(truth) - log_p), 0), -1),
        }
        for n, other in enumerate(self.ngrams(batch.inputs), 1):
            values[f"tv_{n}gram"] = _total_variation(p, other)
        seen = jnp.cumsum(batch.inputs == self.num_symbols, axis=1) - 1
        results = {"loss": self.loss(logits, batch)}
        for name, value in values.items():
            results[name] = weighted(value, batch.weights)
            for words in range(self.words[1]):
                at = batch.weights * (seen == words)
                results[Slice.of(name, words=words).name] = weighted(value, at)
        return results

    def ngrams(self, inputs: jax.Array) -> list[jax.Array]:
        """The in-context predictors of order 1, …, 3 after each token: [B, T, V] each."""
        symbols = jnp.arange(self.vocab_size) < self.num_symbols
        return jax.vmap(lambda tokens: ngrams.in_context(tokens, _NGRAMS, symbols))(inputs)

    def reference_scores(self) -> dict[str, float]:
        """Validity of a random symbol, of the n-gram predictors, and of the automaton.

        The best predictor that does not know the automaton would weigh all automata that agree with
        what was seen, which nobody can enumerate; it lies between the 3-gram's and the oracle's.
        """
        return {name: found[self.metric.name] for name, found in self.reference_metrics().items()}

    def reference_notes(self) -> dict[str, str]:
        return {
            "oracle": "knows the automaton that wrote the sequence",
            "3-gram": "counts, in this sequence, what came after the same two symbols",
            "2-gram": "counts, in this sequence, what came after the same symbol",
            "1-gram": "counts the symbols of this sequence so far",
            "uniform": "names any symbol at random",
        }

    def reference_metrics(self) -> dict[str, dict[str, float]]:
        """Every metric of the reference predictors, measured on the test set like a model's."""
        return self._reference_metrics

    @functools.cached_property
    def _reference_metrics(self) -> dict[str, dict[str, float]]:
        names = ["uniform", *(f"{n}-gram" for n in range(1, _NGRAMS + 1)), "oracle"]
        steps = -(-self._counts["test"] // _REFERENCE_BATCH)

        def measure(step: jax.Array) -> dict[str, dict[str, Average]]:
            batch = self.eval_batch(step, _REFERENCE_BATCH, "test")
            uniform = jnp.broadcast_to(
                (jnp.arange(self.vocab_size) < self.num_symbols) / self.num_symbols,
                batch.truth.shape,
            )
            known = (uniform, *self.ngrams(batch.inputs), batch.truth)
            return {
                name: self.metrics(jnp.log(p), batch) for name, p in zip(names, known, strict=True)
            }

        measured = jax.jit(lambda: jax.lax.map(measure, jnp.arange(steps)))()
        summed = jax.tree.map(lambda a: a.sum(), measured)
        values = {
            name: {metric: float(average.value) for metric, average in summed[name].items()}
            for name in names
        }
        # The likelihood of an n-gram predictor is zero where something new comes.
        return {
            name: {metric: value for metric, value in found.items() if math.isfinite(value)}
            for name, found in values.items()
        }


def _total_variation(p: jax.Array, q: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(p - q), axis=-1) / 2
