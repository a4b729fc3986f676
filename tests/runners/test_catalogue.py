"""The table of architectures is what the code says."""

import re

import pytest

import arch
from runners import catalogue
from runners.core.errors import ConfigError


@pytest.mark.parametrize("name", arch.names())
def test_every_architecture_names_its_paper(name):
    cls = arch.get(name)
    form = re.fullmatch(r".+ \(.+ (\d{4})\)", cls.paper)
    assert form, (
        f"{cls.__name__}.paper is {cls.paper!r}, expected a name with authors and year such as "
        '"GLA (Yang et al. 2023)"'
    )
    number = re.fullmatch(r"https://arxiv\.org/abs/(\d\d)(\d\d)\.\d{4,5}", cls.reference)
    assert number, f"{cls.__name__}.reference is {cls.reference!r}, expected an arXiv address"
    years = {2000 + int(number[1])}
    if number[2] == "01":  # numbered in January, perhaps sent on the last days of December
        years.add(2000 + int(number[1]) - 1)
    assert int(form[1]) in years, f"{cls.paper} is not of the year of {cls.reference}"


def test_the_page_is_current():
    page = (catalogue.FOLDER / "README.md").read_text(encoding="utf-8")
    assert catalogue.fill(page) == page, "run python -m runners.catalogue"


@pytest.fixture
def two(monkeypatch, tmp_path):
    """A page with an empty table, in a repository of two architectures."""
    monkeypatch.setattr(arch, "names", lambda: ["gla", "orchid"])
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- catalogue -->old<!-- /catalogue -->\nafter\n")
    return path


def test_a_stale_table_is_found_and_written(two, capsys):
    assert catalogue.run(["--check", "--readme", str(two)]) == 1
    assert "is stale: run python -m runners.catalogue" in capsys.readouterr().out
    assert "old" in two.read_text()
    assert catalogue.run(["--readme", str(two)]) == 0
    assert catalogue.run(["--check", "--readme", str(two)]) == 0
    text = two.read_text()
    assert text.startswith("before\n<!-- catalogue -->\n")
    assert text.endswith("\n<!-- /catalogue -->\nafter\n")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| [")]
    gla, orchid = rows
    assert gla[:5] == [
        "| [gla](gla.py)",
        "[GLA (Yang et al. 2023)](https://arxiv.org/abs/2312.06635)",
        "`gated_linear_attention`",
        "O(T)",
        "O(1)",
    ]
    assert gla[5] == gla[6] == "32.0 KiB"  # H K V = 1 · 128 · 256 numbers ... and the document's id
    assert orchid[3:] == ["O(T log T)", "–", "–", "–", "no", "no |"]


def test_a_page_without_a_place(two):
    two.write_text("nothing")
    with pytest.raises(ConfigError, match="no place for the table"):
        catalogue.run(["--readme", str(two)])
