"""The grids of configs/icll.py, and what is said of wrong options before any work."""

import collections

import pytest

from configs import icll
from runners.core.errors import ConfigError
from runners.core.naming import mixer_name
from runners.study import config as c


def test_every_mixer_of_the_laptop_study_stands_alone_and_beside_ngram_heads():
    trials = c.Study("icll.py", {}).trials()
    patterns = collections.Counter(mixer_name(trial["model"]["mixer"]) for trial in trials)
    mixers = set(icll.LAPTOP_MIXERS)
    assert set(patterns) == mixers | {f"{m}+ngram" for m in mixers} | {"base_conv+attention"}
    assert set(patterns.values()) == {3}
    # All that they may differ in is the architecture and the seed.
    others = [{k: v for k, v in t.items() if k not in ("model", "seed")} for t in trials]
    assert all(other == others[0] for other in others)


def test_the_options_of_a_mixer_are_the_same_beside_ngram_heads():
    found = collections.defaultdict(list)
    for trial in c.Study("icll.py", {"seed": 0}).trials():
        model = trial["model"]
        alone, options = isinstance(model["mixer"], str), model["mixer_options"]
        for mixer in [model["mixer"]] if alone else model["mixer"]:
            found[mixer].append(options if alone else options.get(mixer, {}))
    for mixer in icll.LAPTOP_MIXERS:
        assert all(options == found[mixer][0] for options in found[mixer]), mixer


def test_the_published_grid():
    trials = list(icll.sweep(icll.get_config("paper")))
    axes = {
        "task.options.num_train_examples": 6,
        "model.d_model": 5,
        "model.num_layers": 5,
        "optimizer.learning_rate": 2,
        "seed": 3,
    }
    for key, size in axes.items():
        assert len({trial[key] for trial in trials}) == size, key
    alone = [t for t in trials if isinstance(t["model.mixer"], str)]
    assert len(alone) == len(icll.PAPER_MIXERS) * 6 * 5 * 5 * 2 * 3
    # A single layer has no place for n-gram heads beside a mixer.
    assert len(trials) - len(alone) == len(icll.PAPER_MIXERS) * 6 * 5 * 4 * 2 * 3
    base = c.Study("icll.py:paper", {}).base_trial()
    assert (base["train"]["epochs"], base["train"]["batch_size"]) == (200, 32)
    assert base["task"]["options"]["num_train_examples"] == 1_000


def test_every_architecture_of_the_published_grid_resolves():
    grid = icll.sweep(icll.get_config("paper"))
    chosen = {(str(t["model.mixer"]), t["model.num_layers"]): t for t in grid}
    assert len(chosen) == len(icll.PAPER_MIXERS) * (5 + 4)
    for trial in chosen.values():
        resolved = c.Study("icll.py:paper", trial).base_trial()
        assert resolved["model"]["mixer"] == trial["model.mixer"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task.options.edges": (3, 9)}, "edges="),
        ({"task.options.symbols": (5, 9)}, "num_symbols=6"),
        ({"task.options.words": (5, 2)}, "fewest before the most"),
        ({"task.options.word_length": 0}, "word_length"),
    ],
)
def test_a_wrong_language_is_named_before_any_work(changes, words):
    with pytest.raises(ConfigError, match=words):
        c.Study("icll.py", changes).trials()


def test_an_unknown_preset_is_named():
    with pytest.raises(ConfigError, match="unknown preset 'big'; known: laptop, paper"):
        c.Study("icll.py:big", {})
