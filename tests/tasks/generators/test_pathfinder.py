"""Pathfinder's answers are what flood filling says, and only following a curve tells them."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tasks
from configs.lra import LAPTOP_TASKS
from tasks.generators import pathfinder
from tasks.generators.pathfinder import PATH_X, PATHFINDER, Difficulty

SMALL = Difficulty(
    size=16,
    contour_length=6,
    gap=0.7,
    dot_radius=1.0,
    distractors=0,
    margin=2.0,
    radius=1.5,
)
LAPTOP = tasks.build("lra_pathfinder", **LAPTOP_TASKS["pathfinder"]["task.options"]).difficulty
PRESETS = pytest.mark.parametrize(
    "difficulty", [LAPTOP, SMALL, PATHFINDER, PATH_X], ids=["8", "16", "32", "128"]
)


def draw(difficulty, seed, count):
    """(images, labels) of the first `count` examples."""
    examples = itertools.islice(difficulty.examples(np.random.default_rng(seed)), count)
    images, labels = zip(*examples, strict=True)
    return np.stack(images), np.array(labels)


def scenes(difficulty, seed, count):
    """At least `count` scenes: (dots, contours, distractors, joined)."""
    rng, found = np.random.default_rng(seed), []
    while sum(len(joined) for *_, joined in found) < count:
        found.append(pathfinder.scenes(rng, difficulty))
    return [np.concatenate(part) for part in zip(*found, strict=True)]


def painted(size, curves, scale):
    """A mask [size · scale] ² of curves [C, P, 2] in full lines one pixel wide at the least, by
    setting every cell that is passed; another way than the generator's to draw."""
    mask = np.zeros((size * scale, size * scale), bool)
    share = np.linspace(0, 1, 64)[:, None]
    for curve in curves:
        for start, end in itertools.pairwise(curve):
            x, y = (((1 - share) * start + share * end) * scale).astype(int).T
            mask[y, x] = True
    return ndimage.binary_dilation(mask, np.ones((3, 3)))


def check_by_flood_fill(difficulty, seed, count):
    dots, contours, _, joined = scenes(difficulty, seed, count)
    for where, curves, answer in zip(dots, contours, joined, strict=True):
        # Lines three cells wide, and curves at least 6 cells apart: the margin, 1.6 or more (less
        # what the points half a step of 0.96 aside hide: √(1.6² - 0.48²) = 1.53), times 4.
        parts, number = ndimage.label(painted(difficulty.size, curves, 4), np.ones((3, 3)))
        x, y = (where * 4).astype(int).T
        one, other = parts[y, x]
        assert number == 2
        assert one > 0
        assert other > 0
        assert (one == other) == answer


@PRESETS
def test_answers_are_those_of_flood_filling(difficulty):
    check_by_flood_fill(difficulty, 0, 50)


@pytest.mark.slow
@PRESETS
def test_thousands_of_answers_are_those_of_flood_filling(difficulty):
    check_by_flood_fill(difficulty, 1, 3000)


@PRESETS
def test_curves_are_as_they_should_be(difficulty):
    """One length, within the image, clear of each other; distractors are as many as asked for."""
    dots, contours, distractors, _ = scenes(difficulty, 2, 50)
    for curves, dashes in (
        (contours, difficulty.contour_length),
        (distractors, difficulty.distractor_length),
    ):
        steps = np.linalg.norm(np.diff(curves, axis=-2), axis=-1).sum(-1)
        np.testing.assert_allclose(steps, difficulty.length(dashes), rtol=1e-9)
    assert distractors.shape[1] == difficulty.distractors
    for where, long, short in zip(dots, contours, distractors, strict=True):
        curves = [*long, *short]
        points = np.concatenate(curves)
        assert (points > difficulty.dot_radius).all()
        assert (points < difficulty.size - difficulty.dot_radius).all()
        for a, b in itertools.combinations(curves, 2):
            apart = np.linalg.norm(a[:, None] - b, axis=-1).min()
            assert apart >= difficulty.margin * (1 - 1e-9)
        at_ends = np.linalg.norm(where[:, None] - long[:, [0, -1]].reshape(4, 2), axis=-1)
        # Newton's method stops within 0.001 pixels.
        assert at_ends.min(1).max() < 2e-3
        assert np.linalg.norm(where[0] - where[1]) > difficulty.ends_apart * difficulty.margin


@PRESETS
def test_the_seed_decides_and_labels_are_balanced(difficulty):
    images, labels = draw(difficulty, 3, 100)
    again, labels_again = draw(difficulty, 3, 100)
    other, _ = draw(difficulty, 4, 5)
    assert images.dtype == np.uint8
    assert images.shape == (100, difficulty.size, difficulty.size)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert not (images[:5] == other).all((1, 2)).any()
    assert len({image.tobytes() for image in images}) == 100
    assert abs(labels.mean() - 0.5) < 4 * 0.5 / 100**0.5


@PRESETS
def test_ink_is_that_of_the_dashes_and_the_dots(difficulty):
    """The expected ink of a stroke whose place on the grid is random is the integral of its soft
    profile c(r), r from the middle of the pen, along it and over its two round ends.

    Where strokes meet the brighter counts. Soft edges of two dashes overlap by 1 - gap <= 0.4;
    there the fainter has 0.1 on average, at most as wide as the pen: 0.03 of a stroke's ink, which
    is 1 or more. Those of two curves, and of a curve and a dot, hardly meet. A dot hides dashes
    along its reach. Means over 100 images of 6 strokes and more scatter by less than 1%.
    """
    images, _ = draw(difficulty, 5, 100)
    d = difficulty
    r = (np.arange(5000) + 0.5) / 1000

    def profile(thickness):
        covered = np.clip(thickness / 2 + 0.5 - r, 0, 1)
        return 2 * covered.sum() / 1000, 2 * np.pi * (r * covered).sum() / 1000

    (across, ends), (_, dot) = profile(d.thickness), profile(2 * d.dot_radius)
    dashes = 2 * d.contour_length + d.distractors * d.distractor_length
    strokes = dashes * ((d.dash - d.thickness) * across + ends)
    most, least = strokes + 2 * dot, 0.97 * strokes + 2 * (dot - (d.dot_radius + 1) * across)
    assert 0.99 * least < images.sum((1, 2)).mean() / 255 < 1.01 * most
    # A pixel's middle is within √½ of the dot's.
    brightest = min(1, d.dot_radius + 0.5 - 0.5**0.5)
    assert (images.max((1, 2)) >= np.floor(255 * brightest)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size=0: expected an integer of at least 1"),
        ({"contour_length": 2.5}, r"contour_length=2\.5: expected an integer"),
        ({"distractors": -1}, "distractors=-1: expected an integer of at least 0"),
        ({"dash": "long"}, "dash='long': expected a finite number"),
        ({"dot_radius": -1}, "dot_radius=-1: expected at least 0"),
        ({"radius": 0}, "radius=0: expected a radius above 0"),
        ({"ends_apart": 0.9}, "ends_apart=0.9, margin=2.6, dot_radius=1.2: expected .* at least 1"),
        ({"ends_apart": 1.0, "dot_radius": 1.4}, "otherwise dots overlap"),
        ({"dot_radius": 2.2}, "dot_radius=2.2, margin=2.6, thickness=0.8: expected dot_radius"),
        ({"gap": 2.0}, "gap=2.0, margin=2.6, thickness=0.8: expected a gap"),
        ({"thickness": 2.0}, "thickness=2.0, dash=1.3: expected a dash"),
    ],
)
def test_impossible_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PATHFINDER, **change)


@pytest.mark.parametrize("change", [{"size": 8}, {"distractors": 60, "size": 26}])
def test_what_does_not_fit_is_given_up(change):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="nothing fitted the image; take shorter curves"):
        next(dataclasses.replace(PATHFINDER, **change).examples(rng))


class Local(nn.Module):
    """Sees 17 × 17 pixels at a time, less than a curve's 30, and pools over the image."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (5, 5))(x))
        x = nn.relu(nn.Conv(16, (5, 5), strides=2)(x))
        x = nn.relu(nn.Conv(16, (5, 5))(x))
        x = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], -1)
        return nn.Dense(1)(nn.relu(nn.Dense(32)(x)))[:, 0]


def cnn_accuracy(train, test, epochs):
    """Of `Local`, trained on (images, labels) by Adam, on others."""
    network, optimizer = Local(), optax.adam(2e-3)
    weights = network.init(jax.random.key(0), jnp.zeros((1, *train[0].shape[1:], 1)))

    def outputs(weights, images):
        return network.apply(weights, images[..., None].astype(jnp.float32) / 255)

    @jax.jit
    def step(weights, state, images, labels):
        def loss(weights):
            return optax.sigmoid_binary_cross_entropy(outputs(weights, images), labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, updates), state

    state, rng = optimizer.init(weights), np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(len(train[0]))
        for rows in order[: len(order) // 100 * 100].reshape(-1, 100):
            weights, state = step(weights, state, train[0][rows], train[1][rows])
    batches = np.array_split(np.arange(len(test[0])), len(test[0]) // 500)
    judge = jax.jit(outputs)
    hits = [(judge(weights, test[0][rows]) > 0) == test[1][rows] for rows in batches]
    return np.concatenate(hits).mean()


def statistics(images):
    """Ink, its sum of squares, the brightest pixel, and the number of parts at three thresholds.

    Not where the ink is: its middle beside that of the dots follows from which ends are joined, so
    that a little of the answer may be read there (0.507 ± 0.009 of 30,000 in one trial).
    """
    grey = images.astype(float) / 255
    parts = [
        [ndimage.label(image > threshold, np.ones((3, 3)))[1] for image in images]
        for threshold in (20, 60, 120)
    ]
    return np.stack([grey.sum((1, 2)), (grey**2).sum((1, 2)), grey.max((1, 2)), *parts], -1)


def of_dots(dots):
    """All that two dots say, in whichever order: places, distance, direction, from the middle."""
    dots = np.take_along_axis(dots, np.argsort(dots[..., :1], 1), 1)
    along = dots[:, 1] - dots[:, 0]
    return np.concatenate(
        [
            dots.reshape(-1, 4),
            along,
            np.hypot(*along.T)[:, None],
            np.arctan2(*along.T)[:, None],
            dots.mean(1),
        ],
        -1,
    )


@pytest.fixture(scope="module")
def many():
    """20,000 scenes to learn from and 20,000 to be tested on: (dots, images, labels) each."""
    found = []
    for seed in (10, 11):
        dots, *shapes, joined = scenes(PATHFINDER, seed, 20_000)
        images = pathfinder.drawn(PATHFINDER, dots, *shapes)
        found.append((dots, images, joined.astype(np.float32)))
    return found


def check_chance(accuracy, count):
    """Within three standard errors of a half."""
    assert abs(accuracy - 0.5) < 3 * 0.5 / count**0.5, f"{accuracy:.4f} of {count}"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["pixels", "statistics", "dots"])
def test_no_shortcut_by(what, many):
    def features(dots, images):
        if what == "pixels":
            return images.reshape(len(images), -1) / 255
        return of_dots(dots) if what == "dots" else statistics(images)

    if what == "pixels":
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=300))
    else:
        model = HistGradientBoostingClassifier(max_iter=100, random_state=0)
    (train, test) = [(features(dots, images), labels) for dots, images, labels in many]
    model.fit(*train)
    check_chance(model.score(*test), len(test[1]))


@pytest.mark.slow
def test_no_shortcut_by_local_features(many):
    train, test = [(images, labels) for _, images, labels in many]
    check_chance(np.mean(test[1]), len(test[1]))  # as many of either answer
    check_chance(cnn_accuracy(train, test, epochs=4), len(test[1]))


@pytest.mark.slow
def test_local_features_find_a_shortcut_where_there_is_one():
    """The same network, where the distractors depend on the answer: one fewer if joined."""
    dots, contours, distractors, joined = scenes(PATHFINDER, 12, 5000)
    distractors[joined, 0] = distractors[joined, 1]
    images = pathfinder.drawn(PATHFINDER, dots, contours, distractors)
    labels = joined.astype(np.float32)
    accuracy = cnn_accuracy((images[:4000], labels[:4000]), (images[4000:], labels[4000:]), 4)
    assert accuracy > 0.6
