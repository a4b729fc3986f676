import inspect

import numpy as np
import pytest

from tasks.sources import DataMissingError
from tasks.text import tokenizer

LINE = "def f(x):\n    return 'ä δ 漢 🙂' * x  # \x00\t tab\n"
TEXT = LINE * 20 + inspect.getsource(inspect)[:20_000]


def bpe(size=400):
    return tokenizer.Bpe(tokenizer.train_bpe([TEXT.encode()], size))


@pytest.mark.parametrize("make", [tokenizer.Bytes, bpe, lambda: bpe(257)])
def test_round_trip(make):
    found = make()
    for text in (TEXT, "words never seen: 日本語 ß", ""):
        ids = found.encode(text.encode())
        assert found.decode(ids) == text.encode()
        assert found.bytes_of[ids].sum() == len(text.encode())
        assert ids.size == 0 or (ids.min() >= 0 and ids.max() < found.end)
    assert found.end == found.vocab_size - 1
    assert found.bytes_of[found.end] == 0
    assert found.decode(np.array([found.end])) == b""


def test_bpe_merges_and_is_the_same_each_time():
    first, second = bpe(), bpe()
    assert first.fingerprint == second.fingerprint != bpe(300).fingerprint
    assert len(first.encode(TEXT.encode())) < len(TEXT.encode()) / 1.5
    assert first.vocab_size == 400


def test_bpe_without_merges_is_bytes():
    found = bpe(257)
    text = TEXT.encode()
    assert len(found.encode(text)) == len(text)
    assert found.bytes_of.tolist() == [1] * 256 + [0]


def test_files(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(DataMissingError, match=r"tokenizer\.json' is not here: expected 'bytes'"):
        tokenizer.load_bpe(path)
    path.write_text("{}")
    with pytest.raises(DataMissingError, match="is no tokenizer"):
        tokenizer.load_bpe(path)
    import tokenizers

    path.write_text(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    with pytest.raises(DataMissingError, match="does not work on bytes"):
        tokenizer.load_bpe(path)
    path.write_text(tokenizer.train_bpe([TEXT.encode()], 300))
    assert tokenizer.load_bpe(path).vocab_size == 300


def test_too_few_ids():
    with pytest.raises(ValueError, match="vocab_size=256: expected at least 257"):
        tokenizer.train_bpe([b"text"], 256)
