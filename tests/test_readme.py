"""What the README promises a newcomer: an example that works as printed, and two commands."""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import arch

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_there_are_exactly_two_commands():
    assert len(blocks("sh")) == 2


def test_the_example_mixer_obeys_the_split_law(tmp_path, monkeypatch):
    source = next(b for b in blocks("python") if "SequenceMixer" in b)
    assert len(source.splitlines()) < 60
    (tmp_path / "readme_mixer.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    name = re.search(r"class (\w+)\(arch.SequenceMixer\)", source)[1]
    mixer = arch.build(f"readme_mixer:{name}", 8, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 7, 8))
    state, outputs = mixer.initial_state(2, 7), []
    for start, stop in [(0, 3), (3, 4), (4, 7)]:
        state, y = mixer.extend(state, x[:, start:stop])
        outputs.append(y)
    # A recurrence of 7 steps in float32: a few units of 6e-8.
    np.testing.assert_allclose(jnp.concatenate(outputs, 1), mixer(x), rtol=1e-5, atol=1e-6)
    del sys.modules["readme_mixer"]


def test_every_file_and_folder_that_the_readme_links_exists():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target
