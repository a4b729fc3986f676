"""Interpolated modified Kneser-Ney smoothing, the n-gram model to compare language models with.

Chen and Goodman, An Empirical Study of Smoothing Techniques for Language Modeling, TR-10-98,
Harvard 1998, section 3. With a the k-gram (h, w), h its context of k − 1 tokens and h' that context
without its first token:

    p_k(w | h) = max(c(h, w) − D(c(h, w)), 0) / Σ_w c(h, w) + γ(h) p_{k−1}(w | h')
    γ(h)       = (D1 N1(h) + D2 N2(h) + D3+ N3+(h)) / Σ_w c(h, w)

where N_j(h) is the number of tokens w with c(h, w) = j. p_0 is uniform over the vocabulary, and
p_k(w | h) = p_{k−1}(w | h') where h never had a successor. In the model of order n, c counts
occurrences for k = n, and for k < n the different tokens that precede (h, w): its continuation
count N1+(• h w). Each length and kind of count has its own discounts.

Documents end with the token `end`, which also stands in front of each as the first context: n-grams
may begin with it, and never reach beyond it. Therefore, and at the start of a row, a context may be
shorter than n − 1; the target then has the probability that the model of the order which its
context allows gives it. Nothing precedes an n-gram that begins with `end`: it has no continuation
count, and no context that allows a higher order ever asks for one.

Letters: N rows, T tokens, V vocabulary, k tokens in an n-gram, n order.
"""

import dataclasses

import numpy as np


class KneserNey:
    """Interpolated modified Kneser-Ney models of all orders from 1 to max_order.

    An n-gram of k tokens has an id, its index among the sorted different pairs of the id of its
    first k − 1 tokens and its last token, so that the keys fit 64 bits for every vocabulary. The
    counting needs some 80 bytes of memory for each token of training text, the model 40 for each
    different n-gram.

    Args:
      tokens: [L] integers, the documents of the training text one after another, each with `end`
        behind it. A memory-mapped array is fine.
      end: the token that ends a document.
      vocab_size: V; every token and `end` is below it.
      max_order: the largest n.

    Raises:
      ValueError: no tokens, a token outside of the vocabulary, or max_order below 1.
    """

    def __init__(self, tokens: np.ndarray, *, end: int, vocab_size: int, max_order: int):
        if max_order < 1:
            raise ValueError(f"max_order is {max_order}; the smallest order is 1")
        tokens = np.asarray(tokens)
        if tokens.ndim != 1 or not tokens.size:
            raise ValueError(f"tokens have the shape {tokens.shape}; expected [L] with L ≥ 1")
        _check_tokens("end", np.asarray(end), vocab_size)
        _check_tokens("tokens", tokens, vocab_size)
        self._end, self._vocab_size = end, vocab_size
        self._levels = _count(tokens, end, vocab_size, max_order)

    def nats(self, rows: np.ndarray, order: int) -> np.ndarray:
        """Negative log-probability of each token of these rows but their first one.

        Args:
          rows: [N, T + 1] integers; the first column is context alone. A row begins with `end`,
            with any other token in the midst of a document, and may hold several documents.
          order: n, from 1 to max_order.

        Returns:
          [N, T] float64, −log p of rows[:, 1:], each given up to n − 1 tokens before it in its row.

        Raises:
          ValueError: rows of another shape, a token outside of the vocabulary, or such an order.
        """
        if not 1 <= order <= len(self._levels):
            raise ValueError(f"order is {order}; this model has 1 to {len(self._levels)}")
        rows = np.asarray(rows)
        if rows.ndim != 2 or rows.shape[1] < 2:
            raise ValueError(f"rows have the shape {rows.shape}; expected [N, T + 1] with T ≥ 1")
        _check_tokens("rows", rows, self._vocab_size)
        rows = rows.astype(np.int64)
        orders = np.minimum(_context_lengths(rows, self._end) + 1, order)  # that of each target
        probability = np.full(orders.shape, 1 / self._vocab_size)
        contexts = np.zeros_like(orders)
        for k, level in enumerate(self._levels[:order], 1):
            ngrams = level.find(contexts * self._vocab_size + rows[:, 1:])
            for smoothed, at in ((level.raw, orders == k), (level.continuation, orders > k)):
                if at.any():
                    probability[at] = smoothed.interpolate(
                        ngrams[at], contexts[at], probability[at]
                    )
            # One token on, an n-gram is the first k tokens of a longer one. The first columns have
            # shorter contexts: their ids mean nothing, and orders keeps them from being used.
            contexts = np.concatenate([rows[:, :1], ngrams[:, :-1]], axis=1)
        return -np.log(probability)


_UNSEEN = -1  # id of an n-gram that the training text lacks


@dataclasses.dataclass
class _Smoothed:
    """Smoothed counts, of one kind, of all n-grams of one length.

    The last entry of either array is that of _UNSEEN.

    Attributes:
      discounted: [n-grams + 1] float64, max(c(h, w) − D, 0) / Σ_w c(h, w).
      backoffs: [contexts + 1] float64, γ(h).
    """

    discounted: np.ndarray
    backoffs: np.ndarray

    @classmethod
    def fit(cls, counts: np.ndarray, contexts: np.ndarray, num_contexts: int) -> "_Smoothed":
        """Smooths counts [n-grams], the contexts of which have these ids [n-grams]."""
        discounts = _discounts(counts)[np.minimum(counts, 3)]  # never larger than their counts
        totals = np.bincount(contexts, counts, minlength=num_contexts)
        seen = totals > 0  # a context at the very end, or one that begins with `end`, may lack all
        totals[~seen] = 1
        backoffs = np.bincount(contexts, discounts, minlength=num_contexts) / totals
        backoffs[~seen] = 1
        discounted = (counts - discounts) / totals[contexts]
        return cls(np.append(discounted, 0.0), np.append(backoffs, 1.0))

    def interpolate(self, ngrams: np.ndarray, contexts: np.ndarray, lower: np.ndarray):
        """Probabilities p_k(w | h), given p_{k−1}(w | h'): shapes are equal, float64."""
        return self.discounted[ngrams] + self.backoffs[contexts] * lower


@dataclasses.dataclass
class _Level:
    """All n-grams of one length k.

    Attributes:
      keys: sorted, id of the first k − 1 tokens × V + last token; None for k = 1, where each token
        of the vocabulary is its own id.
      raw: by occurrences, for the model of order k.
      continuation: by continuation counts, for models of higher orders; the highest level has none.
    """

    keys: np.ndarray | None
    raw: _Smoothed
    continuation: _Smoothed | None

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Ids of the n-grams with these keys, _UNSEEN for those that the training text lacks."""
        if self.keys is None:
            return keys
        if not self.keys.size:  # no document has k − 1 tokens
            return np.full_like(keys, _UNSEEN)
        ids = np.minimum(np.searchsorted(self.keys, keys), self.keys.size - 1)
        return np.where(self.keys[ids] == keys, ids, _UNSEEN)


def _count(tokens: np.ndarray, end: int, vocab_size: int, max_order: int) -> list[_Level]:
    """Counts the n-grams of 1, 2, …, max_order tokens."""
    stream = np.concatenate([[end], tokens]).astype(np.int32)
    context_lengths = _context_lengths(stream, end)
    ids = stream  # of the n-gram of k tokens that ends at each place, where there is one
    counts = np.bincount(stream[1:], minlength=vocab_size)
    keys, contexts, num_contexts = None, np.zeros(vocab_size, np.int32), 1
    levels = []
    for k in range(1, max_order + 1):
        raw = _Smoothed.fit(counts, contexts, num_contexts)
        if k == max_order:
            return [*levels, _Level(keys, raw, None)]
        places = np.flatnonzero(context_lengths >= k) + 1  # where longer n-grams end
        longer = ids[places - 1].astype(np.int64) * vocab_size + stream[places]
        by_key = np.argsort(longer, kind="stable")  # three times as fast here as the default
        longer = longer[by_key]
        is_first = np.diff(longer, prepend=-1) > 0
        firsts = np.flatnonzero(is_first)
        # Each different longer n-gram is one token in front of the n-gram that ends where it does.
        preceding = np.bincount(ids[places[by_key[firsts]]], minlength=counts.size)
        levels.append(_Level(keys, raw, _Smoothed.fit(preceding, contexts, num_contexts)))
        num_contexts = counts.size
        keys, counts = longer[firsts], np.diff(firsts, append=longer.size)
        contexts = (keys // vocab_size).astype(np.int32)
        ids = np.zeros_like(stream)
        ids[places[by_key]] = np.cumsum(is_first, dtype=np.int32) - 1
    return levels


def _context_lengths(tokens: np.ndarray, end: int) -> np.ndarray:
    """Tokens from the last `end`, or from the first token, up to before each one but the first.

    tokens: [..., T + 1]; returns [..., T] int32, at least 1.
    """
    places = np.arange(tokens.shape[-1], dtype=np.int32)
    starts = np.where(tokens == end, places, 0)[..., :-1]
    return places[1:] - np.maximum.accumulate(starts, axis=-1)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Discounts [0, D1, D2, D3+] of counts of 0, 1, 2, and 3 or more.

    Y = n1 / (n1 + 2 n2) and D_j = j − (j + 1) Y n_{j+1} / n_j, where n_j is the number of n-grams
    with the count j. On little text, and for few different n-grams such as single bytes, these are
    undefined or not positive; all three are then 1/2, 1 and 3/2, the fallback of KenLM.
    """
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        discounts = np.array([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (discounts[1:] > 0).all():
            return discounts
    return np.array([0, 0.5, 1, 1.5])


def _check_tokens(name: str, tokens: np.ndarray, vocab_size: int) -> None:
    """Raises ValueError unless all are whole numbers from 0 to V − 1."""
    if not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"{name}: the dtype is {tokens.dtype}; expected integers")
    if tokens.size and not 0 <= (low := tokens.min()) <= (high := tokens.max()) < vocab_size:
        wrong = low if low < 0 else high
        raise ValueError(
            f"{name}: {wrong} is no id; expected 0 to {vocab_size - 1} (vocab_size − 1)"
        )
