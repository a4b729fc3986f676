"""Reviews from an archive like that of IMDB."""

import io
import tarfile

import numpy as np
import pytest

from tasks.builders import prepared
from tasks.builders.text import Config, LraText

TWICE, IN_TEST = b"seen twice", b"also in test"


def archive(path, reviews):
    """reviews: bytes by name; in the order given."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in reviews.items():
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def reviews(manual, known):
    """Twelve of either label to train on, of which ten may be held out; five to test on."""
    found = {"README": b"no review", "train/unsup/0_0.txt": b"without a label"}
    for label in ("pos", "neg"):
        for i in range(10):
            found[f"train/{label}/{i}_7.txt"] = f" {label} {i} caf\u00e9\n".encode()
        found[f"train/{label}/10_7.txt"] = TWICE
        found[f"train/{label}/11_7.txt"] = IN_TEST
    for i in range(4):
        found[f"test/neg/{i}_2.txt"] = b"bad %d" % i
    found["test/pos/0_9.txt"] = IN_TEST
    path = manual / "aclImdb_v1.tar.gz"
    archive(path, found)
    known(LraText, path)
    return found


def written(**options):
    builder = LraText(config=Config(num_validation=8, **options))
    prepared.prepare(builder)
    return builder


def everything(builder, split):
    size = prepared.num_rows(builder, split)
    rows = prepared.rows(builder, split, np.arange(size))
    assert rows["inputs"].shape == (size, builder.max_length)
    return [
        (bytes(inputs[:length]), label)
        for inputs, length, label in zip(
            rows["inputs"], rows["length"], rows["label"].tolist(), strict=True
        )
    ]


def test_every_review_with_its_label(reviews):
    builder = written()
    train, validation, test = (everything(builder, s) for s in ("train", "validation", "test"))
    expected = {"train": [], "test": []}
    for name, content in reviews.items():
        split, _, rest = name.partition("/")
        if rest.startswith(("pos", "neg")):
            expected[split].append((content.strip(), int(rest.startswith("pos"))))
    assert sorted(train + validation) == sorted(expected["train"])
    assert sorted(test) == sorted(expected["test"])


def test_held_out_are_reviews_that_occur_once(reviews):
    for seed in range(3):
        validation = everything(written(seed=seed), "validation")
        assert sorted(label for _, label in validation) == [0] * 4 + [1] * 4
        assert not {TWICE, IN_TEST} & {words for words, _ in validation}
        train = everything(written(seed=seed), "train")
        assert not {words for words, _ in train} & {words for words, _ in validation}


def test_the_seed_decides_which(reviews):
    chosen = {seed: frozenset(everything(written(seed=seed), "validation")) for seed in range(4)}
    assert len(set(chosen.values())) > 1
    assert [everything(written(seed=s), "test") for s in (0, 1)] == [
        everything(written(), "test")
    ] * 2


def test_the_order_of_the_archive_does_not_matter(reviews, known, tmp_path):
    manual = tmp_path / "again" / "downloads" / "manual"
    manual.mkdir(parents=True)
    path = manual / "aclImdb_v1.tar.gz"
    first = written()
    archive(path, dict(reversed(reviews.items())))
    known(LraText, path)
    again = LraText(config=Config(num_validation=8), data_dir=tmp_path / "again")
    prepared.prepare(again)
    for split in ("train", "validation", "test"):
        assert everything(again, split) == everything(first, split)


def test_nothing_is_printed(reviews, capfd):
    """Not even the bars that TFDS draws when it finds a file."""
    written()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("few", [{"num_validation": 22}, {"num_validation": 24}])
def test_more_than_occur_once_is_named(reviews, few):
    with pytest.raises(ValueError, match="of 'neg' there are 10 reviews whose text occurs once"):
        prepared.prepare(LraText(config=Config(**few)))


def test_an_odd_number_is_named():
    with pytest.raises(ValueError, match="num_validation=9: expected an even number"):
        Config(num_validation=9)
