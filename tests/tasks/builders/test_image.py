"""Images from an archive like that of CIFAR-10."""

import io
import tarfile

import numpy as np
import pytest

from tasks.builders import image, prepared
from tasks.builders.image import Config, LraImage

NAMES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
EACH = 6  # images in a file


@pytest.fixture
def records(manual, known):
    """[6 files, images, 3073]: random bytes behind labels that count up."""
    found = np.random.default_rng(0).integers(0, 256, (6, EACH, 3073)).astype(np.uint8)
    found[:, :, 0] = np.arange(6 * EACH).reshape(6, EACH) % 10
    path = manual / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in zip(NAMES, found, strict=True):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = content.size
            tar.addfile(member, io.BytesIO(content.tobytes()))
    known(LraImage, path)
    return found


def everything(builder, split):
    prepared.prepare(builder)
    size = prepared.num_rows(builder, split)
    rows = prepared.rows(builder, split, np.arange(size))
    assert set(rows) == {"inputs", "label"}
    assert rows["inputs"].shape == (size, 1024)
    return list(zip(map(bytes, rows["inputs"]), rows["label"].tolist(), strict=True))


def expected(records):
    """By a multiplication in floating point; a half is rounded up."""
    found = []
    for record in records.reshape(-1, 3073):
        luma = np.array([0.299, 0.587, 0.114]) @ record[1:].reshape(3, 1024)
        found.append((np.floor(luma + 0.5 + 1e-9).astype(np.uint8).tobytes(), int(record[0])))
    return found


def test_every_image_once(records):
    builder = LraImage(config=Config(num_validation=7))
    train, validation = everything(builder, "train"), everything(builder, "validation")
    assert (len(train), len(validation)) == (23, 7)
    assert sorted(train + validation) == sorted(expected(records[:5]))
    assert everything(builder, "test") == expected(records[5:])


def test_the_seed_decides_what_is_held_out(records):
    held_out = {
        frozenset(everything(LraImage(config=Config(num_validation=7, seed=s)), "validation"))
        for s in range(3)
    }
    assert len(held_out) == 3


def test_shades_of_grey():
    """Black, white and the primaries; 0.299 · 255 = 76.2, 0.587 · 255 = 149.7, 0.114 · 255 = 29."""
    colours = np.array([[0, 255, 255, 0, 0], [0, 255, 0, 255, 0], [0, 255, 0, 0, 255]], np.uint8)
    assert image.grey(colours).tolist() == [0, 255, 76, 150, 29]


def test_too_many_held_out(records):
    with pytest.raises(ValueError, match="num_validation=30: expected fewer than the 30 images"):
        prepared.prepare(LraImage(config=Config(num_validation=30)))
