"""The ListOps data set: no expression twice, and the same ones every time."""

import hashlib
import itertools
import pathlib

import numpy as np
import pytest

from tasks.builders import listops, prepared
from tasks.builders.listops import Config, LraListops
from tasks.generators.listops import Grammar

# So short that most expressions are drawn several times.
SHORT = Grammar(max_depth=3, max_arguments=3, length=(4, 9))


def written(**options):
    builder = LraListops(config=Config(**options))
    prepared.prepare(builder)
    return builder


def everything(builder, split):
    size = prepared.num_rows(builder, split)
    rows = prepared.rows(builder, split, np.arange(size))
    return [
        (bytes(inputs[:length]), label)
        for inputs, length, label in zip(
            rows["inputs"], rows["length"], rows["label"].tolist(), strict=True
        )
    ]


def drawn(grammar, seed, count):
    stream = grammar.expressions(np.random.default_rng(seed))
    return [(ids.tobytes(), value) for ids, value in itertools.islice(stream, count)]


def test_each_expression_once_and_the_first_of_its_stream():
    builder = written(grammar=SHORT, num_examples=(2000, 200, 300), seed=7)
    train, validation, test = (everything(builder, s) for s in ("train", "validation", "test"))
    together = [ids for ids, _ in train + validation + test]
    assert len(together) == len(set(together)) == 2500
    stream = drawn(SHORT, [7, 2], 2000)
    expected = list(dict.fromkeys(stream))  # without those that came before
    assert len(expected) < 1900, "too few duplicates to test anything"
    assert test == expected[:300]
    seen = set(test)
    stream = dict.fromkeys(e for e in drawn(SHORT, [7, 1], 2000) if e not in seen)
    assert validation == list(stream)[:200]


def test_the_training_set_may_grow():
    few, many = (written(grammar=SHORT, num_examples=(size, 100, 100)) for size in (500, 1000))
    for split in ("validation", "test"):
        assert everything(few, split) == everything(many, split)
    assert everything(few, "train") == everything(many, "train")[:500]


def test_generated_anew_the_files_are_the_same(tmp_path):
    config = {"grammar": Grammar(length=(20, 90)), "num_examples": (300, 20, 20), "seed": 3}
    digests = []
    for folder in "ab":
        builder = LraListops(config=Config(**config), data_dir=tmp_path / folder)
        prepared.prepare(builder)
        files = sorted(pathlib.Path(builder.data_dir).glob("*.array_record*"))
        assert len(files) == 3
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]


def test_seeds_differ():
    first, second = (written(grammar=SHORT, num_examples=(9, 9, 9), seed=s) for s in (0, 1))
    for split in ("train", "validation", "test"):
        assert everything(first, split) != everything(second, split)


def test_the_default_data_are_as_recorded():
    """Whoever changes them, or finds that numpy did, must raise VERSION and record anew."""
    splits = LraListops().splits(None)
    assert {name: split.size for name, split in splits.items()} == {
        "test": 2000,
        "validation": 2000,
        "train": 96_000,
    }
    digest = hashlib.sha256()
    for name in ("test", "train"):
        for example in itertools.islice(splits[name].examples, 500):
            digest.update(example["inputs"].tobytes() + bytes([255, example["label"]]))
    assert digest.hexdigest() == "d7c22fbb08ade997604e4adfb109c056f69d1a68237d50b5daf8463a13ef7545"


def test_more_than_there_are_is_named(monkeypatch):
    monkeypatch.setattr(listops, "_IN_VAIN", 500)
    tiny = Grammar(max_depth=1, length=(1, 1))  # ten digits
    with pytest.raises(ValueError, match="500 expressions in a row were all among the 10 before"):
        written(grammar=tiny, num_examples=(9, 1, 1))


@pytest.mark.slow
def test_the_whole_data_set_has_no_duplicates():
    builder = written()
    found = [everything(builder, split) for split in ("train", "validation", "test")]
    assert [len(rows) for rows in found] == [96_000, 2_000, 2_000]
    assert len({ids for rows in found for ids, _ in rows}) == 100_000
