"""Promises of the documentation: links that resolve, an example that works, and two commands."""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "arch/README.md",
    "pallas_kernels/README.md",
    "results/README.md",
)


def blocks(language, page=README):
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def anchors(page):
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings}


def test_there_are_exactly_two_commands():
    assert len(blocks("sh")) == 2


def test_the_readme_can_be_read_in_a_minute():
    assert len(README.splitlines()) <= 120


def test_the_example_mixer_obeys_the_split_law(tmp_path, monkeypatch):
    source = next(b for b in blocks("python") if "SequenceMixer" in b)
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


def test_the_example_of_an_operator_runs():
    page = (ROOT / "pallas_kernels" / "README.md").read_text(encoding="utf-8")
    source = next(b for b in blocks("python", page) if "log_decay" in b)
    names = {}
    exec(source, names)
    assert names["o"].shape == (2, 100, 4, 32)
    assert names["state"].shape == (2, 4, 32, 32)


@pytest.mark.parametrize("name", PAGES)
def test_links_resolve(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{name} links {target}"
        assert not anchor or anchor in anchors(linked), f"{name} links {target}"


@pytest.mark.parametrize("name", PAGES)
def test_named_files_and_commands_exist(name):
    """Paths from the top of the repository, such as `tasks/order.py`, and runners' modules."""
    text = (ROOT / name).read_text(encoding="utf-8")
    tops = "arch|configs|pallas_kernels|runners|tasks|tests"
    for path in re.findall(rf"`((?:{tops})/[\w./]+)`", text):
        assert (ROOT / path).exists(), f"{name} names {path}"
    for module in re.findall(r"python -m runners\.(\w+)", text):
        folder = ROOT / "runners" / module
        assert folder.with_suffix(".py").exists() or (folder / "__main__.py").exists(), module
    for study in re.findall(r"--config (\w+\.py)", text):
        assert (ROOT / "configs" / study).exists(), f"{name} names {study}"
