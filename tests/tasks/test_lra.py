"""The registered tasks of the Long Range Arena and their small companion, without their data."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks

SMALL = {"num_train_examples": 40, "num_validation_examples": 6, "num_test_examples": 8}
STORED = {
    "lra_listops": {"max_depth": 3, "length": (4, 20), **SMALL},
    "lra_pathfinder": SMALL,
    "digits": {},
}
PUBLISHED = {  # arXiv 2011.04006; Text and Image with a validation set taken from training
    "lra_listops": ((1999,), (96_000, 2_000, 2_000), 10),
    "lra_text": ((4096,), (22_500, 2_500, 25_000), 2),
    "lra_retrieval": ((2, 4000), (147_086, 18_090, 17_437), 2),
    "lra_image": ((1024,), (45_000, 5_000, 10_000), 10),
    "lra_pathfinder": ((1024,), (160_000, 20_000, 20_000), 2),
}


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_of_the_papers(name):
    task = tasks.build(name)
    shape, sizes, classes = PUBLISHED[name]
    assert task.spec["inputs"].shape == shape
    assert tuple(task.num_examples.values()) == sizes
    assert task.num_classes == classes
    assert task.max_length == shape[-1]


def test_path_x_is_pathfinder_at_128():
    task = tasks.build("lra_pathfinder", size=128)
    assert task.max_length == 16_384
    assert task.difficulty.size == 128


@pytest.mark.parametrize("name", STORED)
def test_rows_are_what_the_specification_says(name):
    task = tasks.build(name, **STORED[name])
    task.prepare()
    for split, size in task.num_examples.items():
        rows = task.read(split, np.array([size - 1, 0]))
        assert rows.keys() == task.spec.keys()
        for key, row in task.spec.items():
            assert rows[key].shape == (2, *row.shape)
            assert rows[key].dtype == row.dtype
        assert len(np.unique(task.read(split, np.arange(size))["label"])) > 1
    batch = task.train_batch(jax.random.key(0), 0, 4)
    if task.num_features:
        assert batch.inputs.shape == (4, task.max_length, task.num_features)
        assert -1 <= float(batch.inputs.min()) < float(batch.inputs.max()) <= 1
    else:
        assert batch.inputs.shape == (4, task.max_length)
        assert 0 <= int(batch.inputs.min()) <= int(batch.inputs.max()) < task.vocab_size


@pytest.mark.parametrize("name", STORED)
def test_no_row_is_in_two_splits(name):
    task = tasks.build(name, **STORED[name])
    task.prepare()
    seen = [
        row.tobytes()
        for split, size in task.num_examples.items()
        for row in task.read(split, np.arange(size))["inputs"]
    ]
    assert len(set(seen)) == len(seen)


def test_the_majority_is_that_of_the_data():
    """20,000 values against 10,000 behind the score: the standard errors are 0.003 and 0.004."""
    options = {"length": (20, 60), "max_depth": 4, "num_train_examples": 20_000}
    task = tasks.build("lra_listops", **options, num_validation_examples=1, num_test_examples=1)
    task.prepare()
    labels = task.read("train", np.arange(20_000))["label"]
    measured = np.bincount(labels).max() / len(labels)
    assert task.reference_scores()["majority"] == pytest.approx(measured, abs=4 * 0.005)


def test_the_majority_of_the_digits_is_that_of_the_data():
    task = tasks.build("digits")
    labels = task.read("test", np.arange(task.num_examples["test"]))["label"]
    assert task.reference_scores() == {"majority": np.bincount(labels).max() / len(labels)}
    assert np.bincount(labels).argmax() == 7


def test_pairs_are_two_sequences_with_lengths_of_their_own():
    task = tasks.build("lra_retrieval")
    rows = {k: jnp.ones((3, *row.shape), row.dtype) for k, row in task.spec.items()}
    batch = task.batch(rows | {"length": jnp.array([[1, 4000], [7, 2], [3, 3]])})
    assert batch.inputs.shape == batch.mask.shape == (3, 2, 4000)
    assert batch.mask.sum(-1).tolist() == [[1, 4000], [7, 2], [3, 3]]
    assert task.head == "pair"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "lra_listops",
            {"num_test_examples": 0},
            "num_test_examples=0: expected an integer of at least 1",
        ),
        ("lra_listops", {"length": (9, 3)}, "length=.9, 3.: expected"),
        ("lra_listops", {"max_depth": 4.5}, "max_depth=4.5: expected an integer of at least 1"),
        ("lra_listops", {"max_arguments": 1}, "max_arguments=1: expected an integer of at least 2"),
        ("lra_listops", {"operator_share": "0.2"}, "operator_share='0.2': expected a finite"),
        ("lra_listops", {"data_seed": -1}, "data_seed=-1: expected an integer of at least 0"),
        ("lra_pathfinder", {"difficulty": 3}, "difficulty=3: expected values by name"),
        ("lra_pathfinder", {"size": "32"}, "size='32': expected an integer"),
        ("lra_pathfinder", {"release": "yes"}, "release='yes': expected True or False"),
        ("lra_pathfinder", {"difficulty": {"dashes": 3}}, "'dashes', expected .* contour_length"),
        ("lra_pathfinder", {"release": True, "size": 48}, "size=48 .* sizes .32, 64, 128"),
        ("lra_pathfinder", {"release": True, "difficulty": {"gap": 1}}, "leave difficulty empty"),
    ],
)
def test_a_wrong_option_is_named(name, options, words):
    with pytest.raises(ValueError, match=words):
        tasks.build(name, **options)


def test_other_numbers_of_rows_than_expected_are_not_trained_on(monkeypatch):
    task = tasks.build("lra_listops", **STORED["lra_listops"])
    task.prepare()
    task.num_examples["test"] = 9
    with pytest.raises(tasks.DataMissingError, match="8 test rows, expected 9"):
        task.prepare()


@pytest.mark.parametrize(
    ("name", "package"), [("lra_listops", "tensorflow_datasets"), ("digits", "sklearn")]
)
def test_a_missing_library_is_named_with_the_command(name, package, monkeypatch):
    import tasks.digits

    tasks.digits._digits.cache_clear()
    real = builtins.__import__

    def without(module, *args, **kwargs):
        if module.partition(".")[0] == package or module.startswith("tasks.builders"):
            raise ImportError(f"No module named {package!r}", name=package)
        return real(module, *args, **kwargs)

    task = tasks.build(name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(tasks.DataMissingError, match=r"pip install -e '.\[data\]'"):
        task.prepare()
    assert task.reference_scores()  # tables are made where there are no data
