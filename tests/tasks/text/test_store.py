import numpy as np
import pytest

from tasks.sources import DataMissingError
from tasks.text import corpora, store, tokenizer
from tasks.text.rows import DocumentRows, PackedRows, spread

BYTES = tokenizer.Bytes()


def written(corpus, section_bytes=None, **found):
    target = store.folder("tokens", test=str(corpus), section_bytes=section_bytes)
    corpus = corpora.find(str(corpus))
    store.make(target, lambda folder: store.write(folder, corpus, BYTES, section_bytes, **found))
    return store.read(target)


def documents(tokens):
    return [
        BYTES.decode(tokens.ids[start : start + length])
        for start, length in zip(tokens.starts, tokens.lengths, strict=True)
    ]


def test_every_document_is_in_one_split(texts):
    tokens = written(texts)
    found = [text for split in tokens.values() for text in documents(split)]
    assert sorted(found) == sorted(path.read_bytes() for path in texts.iterdir())
    for split in tokens.values():
        ends = np.flatnonzero(split.ids == BYTES.end)
        assert ends[0] == 0
        assert ends[1:].tolist() == (split.starts + split.lengths).tolist()


def test_the_split_is_the_content_s(texts):
    before = {s: set(documents(t)) for s, t in written(texts).items()}
    for path in list(texts.iterdir()):
        path.rename(path.with_name(f"new_{path.name}"))
    (texts / "another.txt").write_text("a document more")
    after = {s: set(documents(t)) for s, t in written(texts / ".").items()}
    for split, known in before.items():
        assert known <= after[split]


def test_sections_are_cut_at_lines(tmp_path):
    lines = "".join(f"line {i} ü\n" for i in range(2000))
    (tmp_path / "one.txt").write_text(lines)
    with pytest.raises(DataMissingError, match=r"too few documents .*section_bytes=248"):
        written(tmp_path)
    tokens = written(tmp_path, 300)
    found = [text for split in tokens.values() for text in documents(split)]
    assert sum(map(len, found)) == len(lines.encode())
    assert all(text.endswith(b"\n") and len(text) <= 300 for text in found)


def test_a_section_without_lines_is_cut_between_characters():
    pieces = list(store._cut(iter(["ä".encode() * 100]), 7))
    assert b"".join(pieces).decode() == "ä" * 100
    assert all(piece.decode() for piece in pieces)


@pytest.mark.parametrize("at", [0, 5, 100])
def test_text_that_is_not_utf8_is_named_with_its_place(texts, at, monkeypatch):
    monkeypatch.setattr(corpora, "PIECE_BYTES", 3)
    (texts / "zz.txt").write_bytes("ä".encode() * (at // 2) + b"x" * (at % 2) + b"\xff tail")
    with pytest.raises(DataMissingError, match=rf"'zz\.txt' is not UTF-8 at byte {at}:"):
        written(texts)
    assert not store.folder("tokens", test=str(texts), section_bytes=None).exists()


def test_a_document_cut_within_a_character_is_whole(texts, monkeypatch):
    whole = {s: documents(t) for s, t in written(texts).items()}
    monkeypatch.setattr(corpora, "PIECE_BYTES", 3)
    assert {s: documents(t) for s, t in written(texts / ".").items()} == whole


def test_a_killed_writer_leaves_nothing_that_counts(texts):
    target = store.folder("tokens", test=1)

    def killed(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make(target, killed)
    remains = target.parent / f"{target.name}.unfinished-of-another"
    remains.mkdir()
    calls = []
    store.make(target, lambda folder: calls.append(folder))
    store.make(target, lambda folder: calls.append(folder))
    assert len(calls) == 1
    assert target.exists()
    assert not remains.exists()


@pytest.mark.parametrize("length", [1, 7, 64])
def test_rows_of_documents_predict_each_token_once(texts, length):
    tokens = written(texts)["train"]
    rows = DocumentRows(tokens, length)
    found = rows.read(np.arange(rows.size))
    predicted = [row[1 : 1 + n] for row, n in zip(found["tokens"], found["length"], strict=True)]
    assert np.concatenate(predicted).tolist() == tokens.ids[1:].tolist()
    for row, n in zip(found["tokens"], found["length"], strict=True):
        assert (row[1:n] != BYTES.end).all(), "a row ends with its document"
        assert (row[n + 1 :] == BYTES.end).all()


def test_packed_rows_predict_each_token_once(texts):
    tokens = written(texts)["train"]
    rows = PackedRows(tokens, 64)
    found = rows.read(np.arange(rows.size))
    predicted = [row[1 : 1 + n] for row, n in zip(found["tokens"], found["length"], strict=True)]
    assert np.concatenate(predicted).tolist() == tokens.ids[1:].tolist()
    assert found["length"][:-1].tolist() == [64] * (rows.size - 1)


def test_whole_rows_are_whole(texts):
    tokens = written(texts)["train"]
    rows = DocumentRows(tokens, 500, whole=True)
    found = rows.read(spread(rows.size, rows.size))
    assert found["length"].tolist() == [500] * rows.size
    assert rows.size == sum((tokens.lengths + 1) // 500)
