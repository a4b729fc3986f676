import json
import sys
import types

import pytest

from tasks.sources import DataMissingError
from tasks.text import corpora


def read(corpus):
    return {d.name: b"".join(d.pieces()) for d in corpora.find(corpus).documents()}


def test_sympy_is_the_same_text_everywhere():
    found = corpora.find("sympy")
    text = [b"".join(d.pieces()) for d in found.documents()]
    assert "sympy" not in sys.modules, "the corpus is read, never imported"
    assert sum(map(len, text)) == found.num_bytes == 15_854_120
    assert found.fingerprint == (
        "sha256:60f0b2a8c311341e1054d0d9f92ba12b743fa2136a5deb5f35125bb3eb5b96bc"
    )


def test_another_sympy_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.13")
    with pytest.raises(DataMissingError, match=r"1\.13 is installed: install it with pip install"):
        corpora.find("sympy")


def test_stdlib_has_no_tests():
    names = [d.name for d in corpora.find("stdlib").documents()]
    assert "argparse.py" in names
    assert not {"test", "tests", "encodings"} & {part for name in names for part in name.split("/")}


def test_files_folders_and_globs(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("two")
    (tmp_path / "sub" / "empty.md").write_text("")
    assert read(str(tmp_path)) == {"a.txt": b"one", "sub/b.md": b"two"}
    assert read(str(tmp_path / "a.txt")) == {"a.txt": b"one"}
    assert read([str(tmp_path / "a.txt"), str(tmp_path / "sub" / "*.md")]) == read(str(tmp_path))


def test_json_lines_and_parquet(tmp_path):
    from pyarrow import Table, parquet

    rows = ["first", "zweites ä"]
    lines = "\n".join(json.dumps({"text": text, "other": 1}) for text in rows) + "\n\n"
    (tmp_path / "a.jsonl").write_text(lines)
    assert list(read(str(tmp_path / "a.jsonl")).values()) == [text.encode() for text in rows]
    parquet.write_table(Table.from_pydict({"text": rows, "n": [1, 2]}), tmp_path / "b.parquet")
    assert list(read(str(tmp_path / "b.parquet")).values()) == [text.encode() for text in rows]
    parquet.write_table(Table.from_pydict({"words": rows}), tmp_path / "c.parquet")
    with pytest.raises(DataMissingError, match=r"c\.parquet' has the columns words"):
        read(str(tmp_path / "c.parquet"))


@pytest.mark.parametrize("line", ["no json", '{"words": "x"}', '{"text": 3}', "[1]"])
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(DataMissingError, match=r"line 2 of '.*a\.jsonl' is not JSON with a text"):
        read(str(tmp_path / "a.jsonl"))


def test_what_is_not_there_or_empty(tmp_path):
    with pytest.raises(DataMissingError, match="'nowhere' is not here: expected 'sympy'"):
        corpora.find("nowhere")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataMissingError, match=r"no text: .*a\.txt is empty"):
        corpora.find(str(tmp_path))
    (tmp_path / "a.txt").write_text("text")
    found = corpora.find(str(tmp_path))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataMissingError, match=r"a\.txt' is gone"):
        list(found.documents())


def test_the_fingerprint_is_of_names_and_bytes(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    first = corpora.find(str(tmp_path)).fingerprint
    assert corpora.find(str(tmp_path)).fingerprint == first
    (tmp_path / "a.txt").write_text("Text")
    second = corpora.find(str(tmp_path)).fingerprint
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert len({first, second, corpora.find(str(tmp_path)).fingerprint}) == 3


@pytest.fixture
def builder(monkeypatch):
    """TFDS knows one data set, this one."""
    rows = {"train": [{"text": b"a"}, {"text": b"b"}], "test": [{"text": b"c"}]}
    fake = types.SimpleNamespace(
        info=types.SimpleNamespace(
            features={"text": None}, splits=rows, full_name="fake/1.0.0", dataset_size=3
        ),
        download_and_prepare=lambda **options: None,
        as_data_source=rows.__getitem__,
    )
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder", lambda name, **options: fake)
    return fake


def test_a_data_set_of_tfds_keeps_its_splits(builder):
    found = corpora.find("tfds:fake")
    assert found.fingerprint == "tfds:fake/1.0.0"
    documents = [(d.split, b"".join(d.pieces())) for d in found.documents()]
    assert documents == [("train", b"a"), ("train", b"b"), ("test", b"c")]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModuleNotFoundError("no", name="tensorflow"), "'tfds:fake/1.0.0': pip install tensorflow"),
        (OSError("no network"), "cannot be brought here .OSError: no network"),
    ],
)
def test_a_data_set_that_cannot_be_brought_here(builder, error, line):
    def fail(**options):
        raise error

    builder.download_and_prepare = fail
    with pytest.raises(DataMissingError, match=line):
        list(corpora.find("tfds:fake").documents())


def test_a_data_set_that_tfds_lacks():
    with pytest.raises(DataMissingError, match="TFDS has no data set 'no_such_text'"):
        corpora.find("tfds:no_such_text")
