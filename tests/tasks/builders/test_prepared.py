"""Data sets are made once and whole, and read as they were written."""

import itertools
import pathlib
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tasks.builders import builder as builders
from tasks.builders import prepared

ROOT = pathlib.Path(__file__).parents[3]
TEXTS = [b"", b"a", b"bcd", b"efghi", b"jk"]


class Lines(builders.Builder):
    """The rows are TEXTS, labelled by their place; counts how often it generated them."""

    VERSION = tfds.core.Version("1.0.0")
    Config = staticmethod(lambda: tfds.core.BuilderConfig(name="five"))
    description, homepage, num_classes, max_length = "", "", len(TEXTS), 6
    generated = 0
    promised = len(TEXTS)

    def splits(self, dl_manager):
        type(self).generated += 1
        time.sleep(0.2)  # long enough for another thread to come
        rows = ({"inputs": np.frombuffer(t, np.uint8), "label": i} for i, t in enumerate(TEXTS))
        return {"train": builders.Split(self.promised, rows)}


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.setattr(Lines, "generated", 0)
    return Lines()


@pytest.mark.parametrize("per_shard", [2, 5, 100])
def test_rows_are_what_was_written(lines, monkeypatch, per_shard):
    monkeypatch.setattr(builders, "_SHARD_ROWS", per_shard)
    prepared.prepare(lines)
    assert prepared.num_rows(lines, "train") == 5
    chosen = np.array([3, 0, 3, 4, 1, 2])
    rows = prepared.rows(lines, "train", chosen)
    assert set(rows) == {"inputs", "label", "length"}
    assert rows["inputs"].tolist() == [list(TEXTS[i].ljust(6, b"\0")) for i in chosen]
    assert rows["length"].tolist() == [len(TEXTS[i]) for i in chosen]
    assert rows["label"].tolist() == chosen.tolist()
    assert [rows[name].dtype for name in ("inputs", "length", "label")] == ["u1", "i4", "i4"]


def test_tfds_reads_the_same(lines):
    """With its own decoding, without ours."""
    prepared.prepare(lines)
    source = lines.as_data_source("train")
    assert [(bytes(row["inputs"]), row["label"]) for row in source] == [
        (text, place) for place, text in enumerate(TEXTS)
    ]


class TwoSplits(Lines):
    Config = staticmethod(lambda: tfds.core.BuilderConfig(name="twice"))

    def splits(self, dl_manager):
        found = (super(TwoSplits, self).splits(dl_manager)["train"] for _ in range(2))
        return dict(zip(("train", "test"), found, strict=True))


def test_what_is_written_is_reported(monkeypatch):
    monkeypatch.setattr(builders, "_REPORTED_ROWS", 2)
    monkeypatch.setattr(builders, "_SHARD_ROWS", 3)
    reports = []
    prepared.prepare(TwoSplits(), lambda *numbers: reports.append(numbers))
    assert reports == [(2, 10), (4, 10), (5, 10), (7, 10), (9, 10), (10, 10)]


def test_no_rows_at_all(lines):
    prepared.prepare(lines)
    rows = prepared.rows(lines, "train", np.array([], int))
    assert {name: array.shape for name, array in rows.items()} == {
        "inputs": (0, 6),
        "label": (0,),
        "length": (0,),
    }


@pytest.mark.parametrize("index", [-1, 5])
def test_a_row_that_is_not_there_is_named(lines, index):
    prepared.prepare(lines)
    with pytest.raises(ValueError, match=f"{index}.* 'train' of lines/five/.* has rows 0 to 4"):
        prepared.rows(lines, "train", np.array([2, index]))


def test_a_wrong_split_is_named(lines):
    with pytest.raises(ValueError, match=r"has none yet; call prepare\(builder\) first"):
        prepared.num_rows(lines, "train")
    prepared.prepare(lines)
    with pytest.raises(ValueError, match=r"split='test': lines/five/1\.0\.0 has train"):
        prepared.rows(lines, "test", np.array([0]))


def test_prepared_once_and_quietly(monkeypatch, capfd, caplog):
    monkeypatch.setattr(Lines, "generated", 0)
    # Asked only of those who want it.
    monkeypatch.setattr(tfds.core.utils.gcs_utils, "is_dataset_on_gcs", None)
    first = Lines()
    for each in (first, first, Lines()):
        prepared.prepare(each)
        assert prepared.num_rows(each, "train") == 5
    assert Lines.generated == 1
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelname != "INFO"]


def test_two_at_once_wait_for_one_another(monkeypatch):
    monkeypatch.setattr(Lines, "generated", 0)
    both = Lines(), Lines()
    threads = [threading.Thread(target=prepared.prepare, args=(each,)) for each in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Lines.generated == 1
    assert [prepared.num_rows(each, "train") for each in both] == [5, 5]


def test_what_breaks_off_leaves_nothing_behind(lines, monkeypatch):
    monkeypatch.setattr(Lines, "promised", 7)
    with pytest.raises(ValueError, match="train ended after 5 rows"):
        prepared.prepare(lines)
    folder = pathlib.Path(lines.data_dir)
    assert not folder.exists()
    remains = folder.parent / f"incomplete.ABCDEF_{folder.name}"
    remains.mkdir()  # as after a kill
    monkeypatch.setattr(Lines, "promised", 5)
    prepared.prepare(lines)
    assert prepared.num_rows(lines, "train") == 5
    assert not remains.exists()


def test_the_data_directory(monkeypatch, tmp_path):
    assert builders.data_directory() == tmp_path / "data"
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert builders.data_directory() == tmp_path / "tensorflow_datasets"


def _variants():
    """Builder, and configurations of which no two make the same data."""
    from tasks.builders import image, listops, pathfinder, pathfinder_release, retrieval, text
    from tasks.generators.listops import Grammar
    from tasks.generators.pathfinder import Difficulty

    sizes = {"num_examples": (3, 2, 1)}, {"num_examples": (3, 1, 2)}, {"num_examples": (2, 2, 1)}
    grammars = (
        {"max_depth": 9},
        {"max_arguments": 9},
        {"operator_share": 0.2},
        {"length": (500, 1999)},
        {"length": (501, 1998)},
    )
    looks = (
        {"size": 64},
        {"contour_length": 13},
        {"dash": 1.4},
        {"gap": 0.8},
        {"thickness": 0.7},
        {"dot_radius": 1.3},
        {"distractors": 5},
        {"distractor_length": 5},
        {"margin": 2.7},
        {"ends_apart": 1.9},
        {"radius": 2.1},
    )
    seed = {"seed": 1}
    return {
        listops: (
            listops.Config,
            [{}, seed, *sizes, *({"grammar": Grammar(**changes)} for changes in grammars)],
        ),
        pathfinder: (
            pathfinder.Config,
            [{}, seed, *sizes, *({"difficulty": Difficulty(**changes)} for changes in looks)],
        ),
        pathfinder_release: (
            pathfinder_release.ReleaseConfig,
            [{}, seed, *sizes, {"size": 128}, {"difficulty": "curv_baseline"}],
        ),
        text: (text.Config, [{}, seed, {"max_length": 9}, {"num_validation": 10}]),
        image: (image.Config, [{}, seed, {"num_validation": 10}]),
        retrieval: (retrieval.Config, [{}, {"max_length": 9}]),
    }


@pytest.mark.parametrize("module", _variants(), ids=lambda m: m.__name__.rpartition(".")[2])
def test_every_option_has_a_folder_of_its_own(module):
    config, variants = _variants()[module]
    changed = set(itertools.chain.from_iterable(variants))
    options = set(config.__dataclass_fields__) - set(tfds.core.BuilderConfig.__dataclass_fields__)
    assert changed == options, "an option is missing in this test"
    names = [config(**options).name for options in variants]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 255, "no file system takes longer names"
    assert not set("/ \\") & set("".join(names))


@pytest.mark.parametrize("module", _variants(), ids=lambda m: m.__name__.rpartition(".")[2])
def test_wrong_options_are_named(module):
    config, variants = _variants()[module]
    options = set().union(*variants)
    wrong = [
        ("seed", -1, "seed=-1: expected an integer of at least 0"),
        ("num_examples", (5, 5), "expected those of train, validation, test"),
        ("num_examples", (5, 0, 5), "num_examples of validation=0: expected an integer"),
        ("max_length", 0, "max_length=0: expected at least one byte"),
        ("num_validation", 0, "num_validation=0: expected"),
    ]
    for name, value, words in wrong:
        if name in options:
            with pytest.raises(ValueError, match=words):
                config(**{name: value})


def test_grammars_and_difficulties_have_no_other_options():
    """Those that test_every_option_has_a_folder_of_its_own varies."""
    from tasks.generators.listops import Grammar
    from tasks.generators.pathfinder import Difficulty

    assert len(Grammar.__dataclass_fields__) == 4
    assert len(Difficulty.__dataclass_fields__) == 11
