"""Pairs from tables like those of the LRA release."""

import numpy as np
import pytest

from tasks import DataMissingError
from tasks.builders import prepared
from tasks.builders.retrieval import Config, LraRetrieval

PAIRS = {
    "train": [
        (b"1.0", b"first", b"the second"),
        (b"0.0", b"", b"b'lines\\n'"),
        (b"1.0", b"a", b"b"),
    ],
    "eval": [(b"0.0", b"\xff\x00", b'"quoted')],
    "test": [(b"1.0", b"x" * 50, b"y" * 12)],
}


@pytest.fixture
def tables(manual):
    folder = manual / "lra_release" / "lra_release" / "tsv_data"
    folder.mkdir(parents=True)
    for name, pairs in PAIRS.items():
        lines = [b"\t".join([label, b"1", b"2", *texts]) + b"\n" for label, *texts in pairs]
        (folder / f"new_aan_pairs.{name}.tsv").write_bytes(b"".join(lines))
    return folder


def test_every_pair(tables):
    builder = LraRetrieval(config=Config(max_length=12))
    prepared.prepare(builder)
    for split, name in {"train": "train", "validation": "eval", "test": "test"}.items():
        pairs = PAIRS[name]
        assert prepared.num_rows(builder, split) == len(pairs)
        rows = prepared.rows(builder, split, np.arange(len(pairs)))
        assert rows["inputs"].shape == (len(pairs), 2, 12)
        assert rows["label"].tolist() == [int(label == b"1.0") for label, *_ in pairs]
        assert rows["length"].tolist() == [[min(12, len(t)) for t in texts] for _, *texts in pairs]
        for row, (_, *texts) in zip(rows["inputs"], pairs, strict=True):
            assert [bytes(each) for each in row] == [t[:12].ljust(12, b"\0") for t in texts]


def test_no_pairs_at_all(tables):
    builder = LraRetrieval()
    prepared.prepare(builder)
    rows = prepared.rows(builder, "train", np.array([], int))
    assert {name: array.shape for name, array in rows.items()} == {
        "inputs": (0, 2, 4000),
        "label": (0,),
        "length": (0, 2),
    }


def test_the_published_length():
    assert LraRetrieval().stored_shape == (2, 4000)


@pytest.mark.parametrize("line", [b"1.0\t1\t2\tone text", b"2.0\t1\t2\ta\tb", b"label\t1\t2\ta\tb"])
def test_a_line_that_is_none_is_named(tables, line):
    with (tables / "new_aan_pairs.eval.tsv").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ValueError, match=r"new_aan_pairs\.eval\.tsv, line 2: expected a label"):
        prepared.prepare(LraRetrieval())


def test_a_missing_table_is_named(tables):
    (tables / "new_aan_pairs.test.tsv").unlink()
    with pytest.raises(DataMissingError, match=r"tsv_data/new_aan_pairs\.test\.tsv: download"):
        prepared.prepare(LraRetrieval())
