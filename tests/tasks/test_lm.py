import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from tasks.text import slices, tokenized


@pytest.fixture
def make(texts, tmp_path, monkeypatch):
    """Makes the task over a small corpus, with stored data of its own."""
    monkeypatch.setenv("SEQBENCH_DATA", str(tmp_path / "data"))

    def build(**options):
        return tasks.build(
            "lm",
            **{
                "corpus": str(texts),
                "length": 32,
                "num_validation_rows": 10,
                "num_test_rows": 70,
                "num_long_rows": 2,
                "extrapolation": 4,
            }
            | options,
        )

    return build


def batches(task, split, part=0, batch_size=8):
    source = task.source(split)
    given = tasks.Given(resident=source.resident())
    steps = -(-task.parts(split)[part].num_examples // batch_size)
    return [source.eval_batch(given, step, batch_size, part) for step in range(steps)]


def averages(task, parts, predict):
    total = {}
    for batch in parts:
        for name, found in task.metrics(predict(batch), batch).items():
            total[name] = total[name] + found if name in total else found
    return {name: float(average.value) for name, average in total.items()}


def uniform(batch):
    return jnp.zeros((*batch.targets.shape, 257))


def test_bits_are_of_bytes_and_ends_cost_too(make):
    task = make()
    task.prepare()
    rows = task.eval_set("test", 0)
    num_targets = rows["length"].sum()
    predicted = np.arange(32) < rows["length"][:, None]
    num_bytes = num_targets - np.sum((rows["tokens"][:, 1:] == 256) & predicted)
    assert num_bytes < num_targets
    found = averages(task, batches(task, "test"), uniform)
    np.testing.assert_allclose(found["loss"], math.log(257), rtol=1e-6)
    np.testing.assert_allclose(
        found["bits_per_byte"], math.log2(257) * num_targets / num_bytes, rtol=1e-6
    )
    np.testing.assert_allclose(
        found["bits_per_byte"], task.reference_scores()["uniform"], rtol=1e-6
    )


def test_evaluation_does_not_depend_on_the_batch_size(make):
    task = make()
    weights = jax.random.normal(jax.random.key(0), (257, 257))
    for part in (0, 1):
        found = [
            averages(task, batches(task, "test", part, size), lambda b: weights[b.inputs])
            for size in (1, 7, 64)
        ]
        for other in found[1:]:
            assert other.keys() == found[0].keys()
            for name, value in found[0].items():
                np.testing.assert_allclose(other[name], value, rtol=1e-5)


def test_bytes_and_a_bpe_that_merges_nothing_agree(make):
    plain, merged = make(), make(tokenizer="bpe", vocab_size=257)
    table = jax.random.normal(jax.random.key(0), (257, 257))
    # Byte by the id of the BPE, which numbers them in an order of its own.
    order = [merged.text.tokenizer.decode(np.array([i]))[0] for i in range(256)] + [256]
    permuted = table[np.ix_(order, order)]
    found = averages(plain, batches(plain, "test"), lambda batch: table[batch.inputs])
    other = averages(merged, batches(merged, "test"), lambda batch: permuted[batch.inputs])
    assert other.keys() == found.keys()
    for name, value in found.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-5)


def test_the_numbers_of_a_model_are_those_of_its_definition(make):
    """A bigram table by hand, in float64."""
    task = make()
    table = np.random.default_rng(0).normal(size=(257, 257))
    nats_of = np.log(np.exp(table).sum(-1))[:, None] - table
    rows = task.eval_set("test", 0)
    nats = nats_of[rows["tokens"][:, :-1], rows["tokens"][:, 1:]]
    real = np.arange(32) < rows["length"][:, None]
    is_byte = rows["tokens"][:, 1:] != 256
    hits = rows["ar_hits"]
    found = averages(task, batches(task, "test"), lambda b: jnp.asarray(table)[b.inputs])
    for name, where in {"": real, "/ar_hits": real & hits, "/other": real & ~hits}.items():
        expected = nats[where].sum() / math.log(2) / is_byte[where].sum()
        np.testing.assert_allclose(found[f"bits_per_byte{name}"], expected, rtol=1e-5)
    assert task.derived_metrics({"loss": np.float32(2.0)}) == {
        "perplexity": pytest.approx(math.exp(2))
    }


def test_recall_hits_by_hand():
    tokens = np.frombuffer(b"xab-ab-ac-abab", np.uint8).astype(np.int32)[None]
    length = np.array([tokens.shape[1] - 1])
    found = slices.recall_hits(tokens, length, 1)[0]
    text = tokens[0]
    for t in range(len(text) - 1):
        pairs = {(text[j], text[j + 1]) for j in range(t)}
        assert found[t] == ((text[t], text[t + 1]) in pairs)
    assert found.sum() == 6  # ab, b-, -a, -a, ab, ab
    deeper = slices.recall_hits(tokens, length, 3)[0]
    assert not (deeper & ~found).any()
    assert slices.recall_hits(tokens, np.array([3]), 1)[0][3:].sum() == 0


def test_long_rows_know_their_lengths_and_positions(make):
    task = make()
    found = averages(task, batches(task, "test", part=1), uniform)
    assert [name for name in found if "length" in name] == [
        f"bits_per_byte/length={length}" for length in (32, 64, 128)
    ]
    assert [name for name in found if "position" in name] == [
        f"bits_per_byte/position={position}" for position in (16, 32, 64, 128)
    ]
    assert "bits_per_byte" not in found
    masks = slices.of_positions(128, 32)
    groups = sum(mask for name, mask in masks.items() if name.startswith("position"))
    np.testing.assert_array_equal(groups, np.ones((1, 128)))
    assert masks["length=64"].sum() == 64


def test_reference_scores_are_in_order(make):
    task = make()
    with pytest.raises(tasks.DataMissingError, match="run its study first"):
        task.reference_scores()
    task.prepare()
    scores = task.reference_scores()
    assert scores["uniform"] > scores["1-gram"] > scores["2-gram"]
    assert scores.keys() == task.reference_notes().keys()
    slices_of = {name: set(values) for name, values in task.reference_metrics().items()}
    assert slices_of["uniform"] == slices_of["5-gram"] > {"bits_per_byte", "bits_per_byte/ar_hits"}


def test_packed_rows_know_their_documents(make):
    task = make(packing="packed")
    rows = task.read("train", np.arange(task.num_examples["train"]))
    batch = task.batch({name: jnp.asarray(values) for name, values in rows.items()})
    begins = np.asarray(batch.inputs) == 256
    ids, real = np.asarray(batch.segment_ids), np.asarray(batch.weights) > 0
    assert (ids[~real] == 0).all()
    assert (ids[real] > 0).all()
    changed = np.diff(ids, axis=1) != 0
    np.testing.assert_array_equal(changed[real[:, 1:]], begins[:, 1:][real[:, 1:]])
    assert batch.inputs.shape == batch.targets.shape == (len(rows["length"]), 32)
    # Evaluation has one document a row, whatever training does.
    assert all(b.segment_ids is None for b in batches(task, "test"))
    for a, b in zip(batches(task, "test"), batches(make(), "test"), strict=True):
        np.testing.assert_array_equal(a.inputs, b.inputs)


def test_training_streams_the_same_rows_wherever_it_starts(make):
    task = make()
    keys = jax.random.split(jax.random.key(0), 2)
    source = task.source("train")

    def tokens(start, shard=None):
        stream = source.stream(keys, 4, start, 9, shard or tasks.Shard())
        return [rows["tokens"] for rows in stream]

    whole = tokens(0)
    for late, early in zip(tokens(5), whole[5:], strict=True):
        np.testing.assert_array_equal(late, early)
    halves = [tokens(0, tasks.Shard(i, 2)) for i in range(2)]
    for step, rows in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([h[step] for h in halves], 1), rows)
    assert whole[0].shape == (2, 4, 33)


def test_an_epoch_has_every_row_once(make):
    task = make()
    size = task.num_examples["train"]
    order = task.train_indices(jax.random.key(3), jnp.int32(0), size)
    assert sorted(order.tolist()) == list(range(size))


def test_the_trial_knows_its_text(make, texts):
    task = make()
    identity = task.identity()
    assert set(identity) == {"fingerprint"}
    assert make(**identity).vocab_size == 257
    (texts / "00.txt").write_text("changed")
    tokenized._find.cache_clear()
    with pytest.raises(tasks.DataMissingError, match=r"has changed: its fingerprint is sha256"):
        make(**identity).identity()
    bpe = make(tokenizer="bpe", vocab_size=260).identity()
    assert set(bpe) == {"fingerprint", "vocab_size", "tokenizer_fingerprint"}
    with pytest.raises(tasks.DataMissingError, match="tokenizer 'bpe' has changed"):
        make(tokenizer="bpe", **bpe | {"tokenizer_fingerprint": "sha256:0"}).identity()


def test_a_record_s_task_needs_no_text(make, texts):
    task = make(tokenizer="bpe", vocab_size=260)
    options = task.identity()
    for path in texts.iterdir():
        path.unlink()
    later = make(tokenizer="bpe", **options)
    assert later.vocab_size == 260
    assert later.spec["tokens"].shape == (33,)


def test_too_few_rows_are_named(make):
    flags = r"--config\.task\.options\.num_validation_rows=\d+ --config\.task\.options\."
    with pytest.raises(tasks.DataMissingError, match=flags + r"num_test_rows=\d+$"):
        make(num_validation_rows=99_999, num_test_rows=99_999).prepare()
    with pytest.raises(tasks.DataMissingError, match=r"with --config.*extrapolation=1$"):
        make(extrapolation=1000).prepare()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing": "tight"}, "packing='tight': expected 'document' or 'packed'"),
        ({"length": 0}, "length=0: expected an integer of at least 1"),
        ({"vocab_size": 300}, "vocab_size=300: bytes have 257"),
        ({"tokenizer": "bpe"}, "vocab_size=None: expected an integer of at least 257"),
        ({"extrapolation": 0}, "extrapolation=0"),
        ({"section_bytes": -1}, "section_bytes=-1"),
        ({"ar_context": 0}, "ar_context=0"),
    ],
)
def test_impossible_options(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_text_in_and_out(make):
    task = make()
    ids = task.encode("gämma".encode())
    assert ids[0] == task.end_token == 256
    assert task.decode(ids).decode() == "gämma"


@pytest.mark.parametrize("options", [{}, {"tokenizer": "bpe", "vocab_size": 300}])
def test_passages_are_text_of_a_split(make, options):
    task = make(**options)
    for split in ("train", "test"):
        tokens = task.text.tokens[split]
        whole = task.decode(tokens.ids)
        size = len(tokens.ids) // 4
        for place in (0.0, 0.37, 0.999):
            text = task.passage(split, place, size)
            assert text in whole
            assert size - 6 <= len(text) <= size
            text.decode()
        assert whole.startswith(task.passage(split, 0.0, 50)[:40])
        with pytest.raises(ValueError, match=f"the {split} text has .* tokens, expected at least"):
            task.passage(split, 0.0, size + 1)


def test_passages_half_of_a_split_apart_have_nothing_in_common(make, texts):
    for path in texts.iterdir():
        path.write_text("".join(f"{path.stem} {i}\n" for i in range(100)))
    task = make()
    size = len(task.text.tokens["test"].ids) // 4 - 20  # less the ends of the documents
    for place in (0.0, 0.2, 0.49):
        own, other = (task.passage("test", p, size).split(b"\n") for p in (place, place + 0.5))
        assert not set(own[1:-1]) & set(other[1:-1])
