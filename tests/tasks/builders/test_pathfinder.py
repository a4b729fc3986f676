"""Pathfinder as a data set: the same images whatever draws them; the release as it is."""

import hashlib
import itertools

import numpy as np
import pytest
from PIL import Image

from tasks import DataMissingError
from tasks.builders import pathfinder, prepared
from tasks.builders.pathfinder import Config, LraPathfinder, ReleaseConfig
from tasks.generators.pathfinder import Difficulty

EASY = Difficulty(contour_length=8, distractors=1)


ALL = ReleaseConfig(num_examples=(16, 2, 2))


def everything(config, split, data_dir=None):
    builder = LraPathfinder(config=config, data_dir=data_dir)
    prepared.prepare(builder)
    size = prepared.num_rows(builder, split)
    rows = prepared.rows(builder, split, np.arange(size))
    assert set(rows) == {"inputs", "label"}
    assert rows["inputs"].shape == (size, builder.max_length)
    return list(zip(map(bytes, rows["inputs"]), rows["label"].tolist(), strict=True))


def drawn(difficulty, seed, count):
    stream = difficulty.examples(np.random.default_rng(seed))
    return [(image.tobytes(), label) for image, label in itertools.islice(stream, count)]


@pytest.mark.parametrize("cores", [1, 2])
def test_images_are_those_of_their_streams(monkeypatch, cores):
    """Two chunks of training images, drawn by one process or by two."""
    monkeypatch.setattr(pathfinder, "_CHUNK_ROWS", 30)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", str(cores))
    config = Config(difficulty=EASY, num_examples=(40, 10, 5), seed=3)
    expected = drawn(EASY, [3, 0, 0], 30) + drawn(EASY, [3, 0, 1], 10)
    assert everything(config, "train") == expected
    assert everything(config, "validation") == drawn(EASY, [3, 1, 0], 10)
    assert everything(config, "test") == drawn(EASY, [3, 2, 0], 5)


def release(folder, size=32, count=20):
    """Images whose first pixel is their number and whose label is whether that is odd."""
    for part in range(2):
        (folder / "imgs" / str(part)).mkdir(parents=True)
    (folder / "metadata").mkdir()
    lines = {0: [], 1: []}
    found = []
    for number in range(count):
        part = number % 2
        pixels = np.random.default_rng(number).integers(0, 256, (size, size)).astype(np.uint8)
        pixels[0, 0] = number
        Image.fromarray(pixels).save(folder / "imgs" / str(part) / f"sample_{number}.png")
        lines[part].append(f"imgs/{part} sample_{number}.png {number} {number % 2} 14 8.5 1.0")
        found.append((pixels.tobytes(), number % 2))
    for part, text in lines.items():
        (folder / "metadata" / f"{part}.npy").write_text("\n".join(text) + "\n")
    return found


@pytest.fixture
def folder(manual):
    return manual / "lra_release" / "lra_release" / "pathfinder32" / "curv_contour_length_14"


def test_the_release_is_divided(folder):
    images = release(folder)
    found = [everything(ALL, split) for split in ("train", "validation", "test")]
    assert [len(each) for each in found] == [16, 2, 2]
    assert sorted(itertools.chain(*found)) == sorted(images)
    other = everything(ReleaseConfig(num_examples=(16, 2, 2), seed=1), "test")
    assert sorted(other) != sorted(found[2])


def test_an_empty_image_is_left_out(folder):
    images = release(folder)
    (folder / "imgs" / "1" / "sample_7.png").write_bytes(b"")
    config = ReleaseConfig(num_examples=(15, 2, 2))
    found = [everything(config, split) for split in ("train", "validation", "test")]
    assert sorted(itertools.chain(*found)) == sorted(images[:7] + images[8:])
    with pytest.raises(ValueError, match=r"num_examples=\(16, 2, 2\): .* has 19 images"):
        prepared.prepare(LraPathfinder(config=ALL))


def test_a_release_that_is_not_there_is_named(manual):
    with pytest.raises(DataMissingError, match="pathfinder128/curv_contour_length_14: download"):
        prepared.prepare(LraPathfinder(config=ReleaseConfig(size=128)))


def test_a_missing_image_is_named(folder):
    release(folder)
    (folder / "imgs" / "0" / "sample_4.png").unlink()
    with pytest.raises(DataMissingError, match=r"sample_4\.png is missing: unpack"):
        prepared.prepare(LraPathfinder(config=ALL))


def test_a_folder_without_images_is_named(folder):
    folder.mkdir(parents=True)
    with pytest.raises(DataMissingError, match="lists no images"):
        prepared.prepare(LraPathfinder(config=ALL))


def test_images_of_another_size_are_named(folder):
    release(folder, size=16)
    with pytest.raises(ValueError, match=r"expected 32 × 32 pixels, not \(16, 16\)"):
        prepared.prepare(LraPathfinder(config=ALL))


@pytest.mark.parametrize("line", ["imgs/0 sample_0.png 0", "imgs/0 sample_0.png 0 yes"])
def test_metadata_that_are_none_are_named(folder, line):
    release(folder)
    (folder / "metadata" / "1.npy").write_text(line)
    with pytest.raises(ValueError, match=r"1\.npy, line 1: expected a folder"):
        prepared.prepare(LraPathfinder(config=ALL))


@pytest.mark.parametrize("options", [{"size": 48}, {"difficulty": "hard"}])
def test_a_release_that_never_was_is_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}=.* expected one of"):
        ReleaseConfig(**options)


def test_the_default_images_are_as_recorded():
    """Whoever changes them, or finds that numpy did, must raise VERSION and record anew."""
    images, labels = pathfinder._drawn(Difficulty(), [0, 0, 0], 100)
    digest = hashlib.sha256(images.tobytes() + bytes(labels))
    assert digest.hexdigest() == "82659bf543d59b0a62e013851a00197a273f25595a800358638f3815e5b23abf"
