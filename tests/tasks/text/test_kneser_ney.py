"""Kneser-Ney models against dictionaries that follow the paper's equations."""

import collections
import functools
import importlib.util
import pathlib

import numpy as np
import pytest

from tasks.text.kneser_ney import KneserNey

END, V = 256, 257
ORDERS = range(1, 7)


def module_bytes(name):
    """Source of a module of the standard library."""
    return list(pathlib.Path(importlib.util.find_spec(name).origin).read_bytes())


def stream(documents, end=END):
    return np.array([token for document in documents for token in [*document, end]])


class Dictionaries:
    """The model of one order: a counter a length, and recursion."""

    def __init__(self, documents, order, end=END, vocab_size=V):
        self.end, self.vocab_size = end, vocab_size
        occurrences = collections.defaultdict(collections.Counter)
        for document in documents:
            tokens = (end, *document, end)
            for last in range(1, len(tokens)):
                for k in range(1, order + 1):
                    if k <= last + 1:
                        occurrences[k][tokens[last - k + 1 : last + 1]] += 1
        self.counts = {order: occurrences[order]}
        for k in range(1, order):
            self.counts[k] = collections.Counter(ngram[1:] for ngram in occurrences[k + 1])
        self.discounts = {k: self._discounts(counts) for k, counts in self.counts.items()}
        self.successors = collections.defaultdict(list)  # of a context: c(h, w) of all its w
        for counts in self.counts.values():
            for ngram, count in counts.items():
                self.successors[ngram[:-1]].append(count)

    @staticmethod
    def _discounts(counts):
        n = [sum(count == j for count in counts.values()) for j in range(5)]
        if 0 in n[1:4]:
            return 0.5, 1.0, 1.5
        y = n[1] / (n[1] + 2 * n[2])
        found = tuple(j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3))
        return found if min(found) > 0 else (0.5, 1.0, 1.5)

    def probability(self, context, token):
        """p(token | context), the context being one token shorter than the order."""
        k = len(context) + 1
        lower = self.probability(context[1:], token) if context else 1 / self.vocab_size
        successors = self.successors[context]
        if not successors:
            return lower
        d1, d2, d3 = self.discounts[k]
        ones, twos = successors.count(1), successors.count(2)
        gamma = d1 * ones + d2 * twos + d3 * (len(successors) - ones - twos)
        count = self.counts[k][(*context, token)]
        discount = (0, d1, d2, d3)[min(count, 3)]
        return (max(count - discount, 0) + gamma * lower) / sum(successors)


def slow_nats(documents, rows, order):
    models = {n: Dictionaries(documents, n) for n in range(1, order + 1)}
    result = np.zeros((len(rows), len(rows[0]) - 1))
    for i, row in enumerate(rows):
        for t in range(len(row) - 1):
            context = row[max(t + 2 - order, 0) : t + 1]
            for j in range(len(context) - 1, -1, -1):
                if context[j] == END:
                    context = context[j:]
                    break
            if order == 1:
                context = []
            p = models[len(context) + 1].probability(tuple(context), row[t + 1])
            result[i, t] = -np.log(p)
    return result


DOCUMENTS = [module_bytes(name) for name in ("colorsys", "keyword", "bisect", "sched", "queue")]

SHORT = [b"abracadabra", b"", b"a"]  # too short for estimated discounts


@functools.cache
def model():
    return KneserNey(stream(DOCUMENTS), end=END, vocab_size=V, max_order=max(ORDERS))


def rows_of_text():
    """Rows from starts and midsts of seen and unseen documents, one with several, one of noise."""
    unseen, T = module_bytes("textwrap"), 100
    several = stream([b"", b"import", b"a", b"", DOCUMENTS[2][:200]])[: T + 1]
    rows = [
        [END, *unseen[:T]],
        unseen[5000 : 5001 + T],
        [END, *DOCUMENTS[0][:T]],
        DOCUMENTS[3][1000 : 1001 + T],
        [*unseen[-T:], END],
        several.tolist(),
        np.random.default_rng(0).integers(0, 256, T + 1).tolist(),
    ]
    assert {len(row) for row in rows} == {T + 1}
    return rows


class TestEquations:
    @pytest.mark.parametrize("order", ORDERS)
    def test_equal_dictionaries(self, order):
        rows = rows_of_text()
        expected = slow_nats(DOCUMENTS, rows, order)
        np.testing.assert_allclose(model().nats(rows, order), expected, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("order", ORDERS)
    def test_equal_dictionaries_on_little_text(self, order):
        found = KneserNey(stream(SHORT), end=END, vocab_size=V, max_order=6)
        rows = [[END, *b"abracad"], [*b"brainca", END], [*b"xxxrabr", END], [END, *b"a", END] * 2]
        rows = [row[: len(rows[-1])] for row in rows]
        expected = slow_nats(SHORT, rows, order)
        np.testing.assert_allclose(found.nats(rows, order), expected, rtol=0, atol=1e-9)

    def test_these_texts_have_both_kinds_of_discounts(self):
        """The comparisons above are of no use for a branch that neither text takes."""
        assert 15_000 < sum(map(len, DOCUMENTS)) < 40_000
        fallback = (0.5, 1.0, 1.5)
        assert fallback not in Dictionaries(DOCUMENTS, 4).discounts.values()
        assert set(Dictionaries(SHORT, 4).discounts.values()) == {fallback}

    def test_by_hand(self):
        """Text "aab": all counts of counts but n1 and n2 are zero, so that D is 1/2, 1, 3/2."""
        a, b, end = range(3)
        found = KneserNey(stream([[a, a, b]], end), end=end, vocab_size=3, max_order=2)
        # Unigrams: (2 − 1)/4 + 2/4 · 1/3 and (1 − 1/2)/4 + 2/4 · 1/3, equal by continuation counts:
        # a follows end and a, b follows a, end follows b.
        p = np.exp(-found.nats([[end, a, b, end]], 1))
        np.testing.assert_allclose(p, [[5 / 12, 7 / 24, 7 / 24]], rtol=1e-14)
        # c(end a) = 1 of 1; c(a b) = 1 of 2, two different successors; c(b end) = 1 of 1.
        p = np.exp(-found.nats([[end, a, b, end]], 2))
        expected = [[1 / 2 + 1 / 2 * 5 / 12, 1 / 4 + 1 / 2 * 7 / 24, 1 / 2 + 1 / 2 * 7 / 24]]
        np.testing.assert_allclose(p, expected, rtol=1e-14)

    @pytest.mark.parametrize("order", ORDERS)
    def test_one_fit_serves_all_orders(self, order):
        alone = KneserNey(stream(DOCUMENTS), end=END, vocab_size=V, max_order=order)
        rows = rows_of_text()
        np.testing.assert_array_equal(alone.nats(rows, order), model().nats(rows, order))


def distribution(model, context, order, vocab_size=V):
    """p(w | context) of every token w."""
    rows = np.tile(np.array([*context, 0]), (vocab_size, 1))
    rows[:, -1] = np.arange(vocab_size)
    return np.exp(-model.nats(rows, order)[:, -1])


class TestSumToOne:
    # Some hundred terms, each rounded: 1e-12 is far above, and far below any forgotten mass.
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize(
        "context",
        [
            pytest.param([END], id="start"),
            pytest.param([END, *b"imp"], id="after the start"),
            pytest.param([*b"\n", END], id="second document"),
            pytest.param(b"    def ", id="seen"),
            pytest.param(b"\xff\xfe\x00\x01\x02\x03", id="unseen"),
            pytest.param(b"\xff return", id="unseen at first"),
            pytest.param(b"return\xff", id="unseen at last"),
        ],
    )
    def test_bytes(self, context, order):
        p = distribution(model(), context, order)
        assert p.min() > 0
        assert p.sum() == pytest.approx(1, abs=1e-12)

    @pytest.mark.parametrize(
        "tokens", [[3], [END], [3, END], [END, END], [3, 3], [3, 4, 5, END]], ids=str
    )
    def test_tiny_texts(self, tokens):
        tiny = KneserNey(np.array(tokens), end=END, vocab_size=V, max_order=5)
        for order in range(1, 6):
            for context in ([END], [3], [3, 4], [END, 3, 4, 5], [3, 3, 3, 3, 3], [3, 4, END]):
                p = distribution(tiny, context, order)
                assert p.min() > 0
                assert p.sum() == pytest.approx(1, abs=1e-12)

    def test_large_vocabulary(self):
        """Keys of pairs and of longer n-grams would overflow 32 bits, and packed tokens 64."""
        vocab_size, end = 60_000, 59_999
        words = np.random.default_rng(0).zipf(1.2, 5000) * 7919 % end
        documents = [words[:3000].tolist(), words[3000:].tolist()]
        large = KneserNey(
            stream(documents, end).astype(np.int32), end=end, vocab_size=vocab_size, max_order=5
        )
        slow = Dictionaries(documents, 5, end, vocab_size)
        for context in (documents[0][100:104], documents[1][-4:]):
            p = distribution(large, context, 5, vocab_size)
            assert p.sum() == pytest.approx(1, abs=1e-11)
            for token in (documents[0][104], end, 17):
                expected = slow.probability(tuple(context), token)
                assert p[token] == pytest.approx(expected, rel=1e-9)


class TestDocuments:
    def test_their_order_in_the_text_changes_nothing(self):
        """Any n-gram across a border would."""
        turned = KneserNey(
            stream([*DOCUMENTS[2:], *DOCUMENTS[:2]]), end=END, vocab_size=V, max_order=6
        )
        rows = rows_of_text()
        for order in ORDERS:
            np.testing.assert_array_equal(turned.nats(rows, order), model().nats(rows, order))

    def test_the_end_of_one_says_nothing_about_the_next(self):
        """Document 2 begins with b after x in one text and after y in the other."""
        texts = [[b"ax", b"bc", b"ay", b"dc"], [b"ay", b"bc", b"ax", b"dc"]]
        first, second = (
            KneserNey(stream(text), end=END, vocab_size=V, max_order=4) for text in texts
        )
        rows = [[*b"x", END, *b"bc"], [*b"y", END, *b"bc"], [*b"q", END, *b"bc"]]
        for order in range(1, 5):
            nats = first.nats(rows, order)
            np.testing.assert_array_equal(nats, second.nats(rows, order))
            assert (nats[:, 1:] == nats[0, 1:]).all()

    def test_a_row_of_two_is_each_alone(self):
        one, two = [END, *b"def f(x):"], [END, *b"return self", END]
        for order in ORDERS:
            alone = [model().nats([row], order)[0] for row in ([*one, END], two)]
            both = model().nats([[*one, *two]], order)[0]
            np.testing.assert_array_equal(both, np.concatenate(alone))

    def test_a_short_context_has_the_model_of_its_order(self):
        rows = [[*b"return self"]]
        for t, order in enumerate(range(2, 7)):
            assert model().nats(rows, 6)[0, t] == model().nats(rows, order)[0, t]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_memory_mapped_tokens_of_any_type(tmp_path, dtype):
    end = 255
    tokens = stream([[t % 255 for t in document] for document in DOCUMENTS[:2]], end)
    np.save(tmp_path / "tokens.npy", tokens.astype(dtype))
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    found = KneserNey(mapped, end=end, vocab_size=256, max_order=3)
    expected = KneserNey(tokens, end=end, vocab_size=256, max_order=3)
    rows = np.stack([mapped[:50], mapped[100:150]])
    np.testing.assert_array_equal(found.nats(rows, 3), expected.nats(rows.astype(int), 3))


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"tokens": np.array([], int)}, r"shape \(0,\)"),
            ({"tokens": np.array([[1]])}, r"shape \(1, 1\)"),
            ({"tokens": np.array([1.0])}, "float64"),
            ({"tokens": np.array([3, 257])}, "257 is no id; expected 0 to 256"),
            ({"tokens": np.array([3, -1])}, "-1 is no id"),
            ({"end": 257}, "end: 257 is no id"),
            ({"max_order": 0}, "max_order is 0"),
        ],
        ids=str,
    )
    def test_text(self, change, message):
        arguments = {"tokens": np.array([3, 256]), "end": 256, "vocab_size": V, "max_order": 2}
        with pytest.raises(ValueError, match=message):
            KneserNey(**(arguments | change))

    @pytest.mark.parametrize(
        ("rows", "order", "message"),
        [
            ([[1, 2]], 7, "order is 7; this model has 1 to 6"),
            ([[1, 2]], 0, "order is 0"),
            ([1, 2], 2, r"shape \(2,\)"),
            ([[1]], 2, r"shape \(1, 1\)"),
            ([[1, 257]], 2, "rows: 257 is no id"),
        ],
    )
    def test_rows(self, rows, order, message):
        with pytest.raises(ValueError, match=message):
            model().nats(rows, order)
