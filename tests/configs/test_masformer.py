"""The layouts of configs/masformer.py."""

import collections

import pytest

from runners.core.errors import ConfigError
from runners.study import config as c


@pytest.mark.parametrize(("preset", "layers", "full"), [("laptop", 4, 1), ("paper", 24, 4)])
def test_full_attention_stands_everywhere_nowhere_last_or_first(preset, layers, full):
    trials = c.Study(f"masformer.py:{preset}", {}).trials()
    patterns = collections.Counter(tuple(trial["model"]["mixer"]) for trial in trials)
    local = ("block_local",) * (layers - full)
    assert set(patterns) == {
        ("attention",),
        ("block_local",),
        local + ("attention",) * full,
        ("attention",) * full + local,
    }
    assert len(set(patterns.values())) == 1  # every pattern is tuned alike


def test_at_the_papers_scale_three_quarters_of_the_scores_are_left_out():
    trials = c.Study("masformer.py:paper", {}).trials()
    patterns = (trial["model"] for trial in trials if len(trial["model"]["mixer"]) > 1)
    model = next(patterns)
    length, block = 8192, model["mixer_options"]["block_local"]["block"]
    share = {"attention": 1, "block_local": block / length}
    left = sum(share[name] for name in model["mixer"]) / len(model["mixer"])
    assert left == pytest.approx(0.27, abs=0.005)


def test_an_unknown_preset_is_named():
    with pytest.raises(ConfigError, match="unknown preset 'big'; known: laptop, paper"):
        c.Study("masformer.py:big", {})
