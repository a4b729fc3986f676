"""What MQAR can be asked for, and what it says to impossible requests."""

import jax
import pytest

import tasks


def test_simple_form():
    task = tasks.build("mqar")
    assert (task.vocab_size, task.max_length) == (8192, 64)
    assert task.metric == tasks.Metric("accuracy")
    assert task.needs_causal
    name = "length=64,num_kv_pairs=4"
    assert task.parts("train") == (tasks.Part(name, 64, None),)
    assert task.parts("validation") == task.parts("test") == (tasks.Part(name, 64, 3000),)
    finite = tasks.build("mqar", num_train_examples=7)
    assert finite.parts("train")[0].num_examples == 7


@pytest.mark.parametrize("kind", [tuple, list])
def test_mixtures(kind):
    task = tasks.build(
        "mqar",
        train=kind([kind([64, 4, 100_000]), kind([128, 8, None])]),
        validation=kind([kind([64, 4, 100])]),
        test=kind([kind([64, 16, 100]), kind([1024, 256, 100])]),
    )
    assert task.max_length == 1024
    assert [part.name for part in task.parts("test")] == [
        "length=64,num_kv_pairs=16",
        "length=1024,num_kv_pairs=256",
    ]
    assert [part.num_examples for part in task.parts("train")] == [100_000, None]
    batch = jax.eval_shape(lambda: task.train_batch(jax.random.key(0), 0, 2, part=1))
    assert batch.inputs.shape == (2, 128)
    batch = jax.eval_shape(lambda: task.eval_batch(0, 2, "test", part=1))
    assert batch.inputs.shape == (2, 1024)
    assert batch.loss_positions.shape == (2, 256)


MIXTURE = ((64, 4, 100),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_kv_pairs": 17}, "num_kv_pairs=17 needs length >= 68 .*length=64: at most 16 pairs"),
        ({"length": 63}, "length=63: expected an even number, such as 64"),
        ({"vocab_size": 16, "length": 64, "num_kv_pairs": 8}, "=16 has 7: take vocab_size >= 18"),
        ({"vocab_size": 63}, "vocab_size=63: expected an even number .* such as 64"),
        ({"vocab_size": 2}, "vocab_size=2: expected an even number of at least 4"),
        ({"vocab_size": 64.0}, r"vocab_size=64\.0: expected an integer"),
        ({"vocab_size": "64"}, "vocab_size='64': expected an integer"),
        ({"length": 0}, "length=0: expected an integer of at least 1"),
        ({"length": -64}, "length=-64: expected an integer of at least 1"),
        ({"num_kv_pairs": 0}, "num_kv_pairs=0: expected"),
        ({"num_kv_pairs": True}, "num_kv_pairs=True: expected"),
        ({"num_train_examples": 0}, "num_examples of train=0: expected"),
        ({"num_train_examples": 2**31}, r"num_examples=2147483648: expected 1 to 2\*\*30"),
        ({"num_test_examples": -1}, "num_examples of test=-1: expected"),
        ({"power_a": float("nan")}, "power_a=nan: expected a finite number"),
        ({"power_a": "0.01"}, "power_a='0.01': expected a finite number"),
        ({"random_non_queries": "no"}, "random_non_queries='no': expected True or False"),
        ({"train": MIXTURE, "length": 64}, "train=… and length=64 exclude each other"),
        ({"test": MIXTURE, "num_train_examples": 5}, "test=… and num_train_examples=5 exclude"),
        ({"train": MIXTURE, "test": MIXTURE}, "train is given but validation is not"),
        (
            {"train": MIXTURE, "validation": (64, 4, 1), "test": MIXTURE},
            r"validation=\(64, 4, 1\):",
        ),
        ({"train": (), "validation": MIXTURE, "test": MIXTURE}, r"train=\(\): expected"),
        ({"train": 3, "validation": MIXTURE, "test": MIXTURE}, "train=3: expected"),
        (
            {"train": MIXTURE, "validation": MIXTURE, "test": ((64, 4, None),)},
            "num_examples of test=None: expected",
        ),
        (
            {"train": MIXTURE * 2, "validation": MIXTURE, "test": MIXTURE},
            "train has two parts of length 64 with 4 pairs",
        ),
        ({"num_kv_pairs": 1}, r"has only 1\.7e\+07 contexts, .* take a larger vocab_size"),
        ({"vocab_size": 18, "num_kv_pairs": 2, "num_train_examples": 5}, "contexts"),
    ],
    ids=str,
)
def test_impossible_requests(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        tasks.build("mqar", **options)
    assert "\n" not in str(caught.value)
