"""Numbers of papers in `results/published`: what was printed, and where it is shown."""

from decimal import Decimal

import pytest

import arch
import tasks
from runners.leaderboard import published, published_tables
from runners.leaderboard.selection import select

# What the papers print as the average over six tasks with ✗ = 50.
PRINTED = {
    "Transformer": "53.66",
    "Performer": "51.18",
    "Nyströmformer": "57.46",
    "S4 (v1)": "80.48",
    "S4-LegS": "86.09",
    "S4D-LegS": "84.89",
    "DSS": "81.88",
    "LRU": "86.3",
    "HGRN": "86.91",
    "SGConv": "87.17",
    "Liquid-S4": "87.32",
    "S5": "87.46",
    "Mega-chunk": "85.66",
    "Mega": "88.21",
    "Mamba": "66.59",
    "Transformer, pretrained": "86.2",
}


# What they print as the average over the five tasks without Path-X (arXiv 2011.04006, 2102.03902).
PRINTED_FIVE = {
    "Transformer": "54.39",
    "BigBird": "55.01",
    "Performer": "51.41",
    "Nyströmformer": "58.95",
}


@pytest.fixture(scope="module")
def lra():
    (table,) = (p for p in published.read_all() if p.title == "Long Range Arena")
    return table


@pytest.fixture(scope="module")
def lm():
    (table,) = (p for p in published.read_all() if p.title == "Language models")
    return table


def test_averages_are_those_that_were_printed(lra):
    # Both are rounded to the printed digits, halves away from zero: they must be equal.
    rows = {row.name: row for row in lra.rows}
    assert rows.keys() == {*PRINTED, "BigBird"}
    for name, number in PRINTED.items():
        assert round(lra.average(rows[name], "all six"), len(number) - 3) == Decimal(number), name
    for name, number in PRINTED_FIVE.items():
        assert lra.average(rows[name], "without Path-X") == Decimal(number), name
    # Printed as 54.17, of which the notes speak.
    assert lra.average(rows["BigBird"], "all six") == Decimal("54.18")
    assert any("54.17" in note and "54.18" in note for note in lra.notes)
    assert lra.average(rows["Transformer, pretrained"], "without Path-X") is None


def test_every_row_has_a_source_and_names_what_is_here(lra, lm):
    for table in (lra, lm):
        assert all("arXiv" in row.source and row.protocol for row in table.rows)
        assert {row.mixer for row in table.rows} - {None} <= set(arch.names())
        assert {column.task for column in table.columns.values()} - {None} <= set(tasks.names())
        assert set(table.beside) <= set(tasks.names())
    assert [n for n, row in enumerate(lra.rows) if row.scores.get("lra_pathx", 0) is None] == [
        *range(4)  # the Transformers of before S4, and no other, are at chance
    ]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("lra_listops", {}, "lra_listops"),
        ("lra_listops", {"length": [501, 1999], "max_depth": 10}, "lra_listops"),  # the defaults
        ("lra_listops", {"length": [8, 48]}, None),
        ("lra_listops", {"num_train_examples": 20_000}, None),
        ("lra_pathfinder", {"size": 32}, None),  # drawn by other rules
        ("lra_pathfinder", {"size": 128}, None),
        ("lra_pathfinder", {"size": 32, "release": True}, "lra_pathfinder"),
        ("lra_pathfinder", {"size": 32, "release": True, "difficulty": {}}, "lra_pathfinder"),
        ("lra_pathfinder", {"size": 32, "release": True, "data_seed": 3}, None),
        ("lra_pathfinder", {"size": 128, "release": True}, "lra_pathx"),
        ("lra_pathfinder", {"size": 64}, None),
        ("digits", {}, None),
    ],
)
def test_only_the_published_settings_are_recognised(lra, name, options, expected):
    task = {"name": name, "options": options, "version": tasks.get(name).version}
    assert [n for n, c in lra.columns.items() if c.holds(task)] == [expected] * bool(expected)
    other = task | {"version": task["version"] + 1}
    assert not any(column.holds(other) for column in lra.columns.values())


def test_language_models_are_those_of_the_papers(lm):
    """Of each size and source the model with the lowest perplexity on WikiText."""
    assert not lm.metric.higher_is_better
    best = {}
    for row in sorted(lm.rows, key=lambda row: lm.metric.rank(row.scores["wikitext"])):
        assert row.scores.keys() == {"wikitext", "lambada"}
        paper = row.source.split(", ")[1]
        best.setdefault((paper, row.name.split()[-1]), (row.name, *map(str, row.scores.values())))
    assert best == {
        ("Gated DeltaNet", "1.3B"): ("Samba 1.3B", "16.13", "13.29"),
        ("GLA", "1.3B"): ("Transformer++ 1.3B", "16.85", "13.44"),
        ("DeltaNet", "1.3B"): ("DeltaNet 1.3B", "16.87", "12.21"),
        ("GLA", "340M"): ("Transformer++ 340M", "28.39", "42.69"),
        ("DeltaNet", "340M"): ("DeltaNet 340M", "28.24", "37.37"),
    }


def test_language_models_stand_on_the_page_of_every_text_study(lm, make_record):
    record = make_record()
    assert published_tables.to_lines(select([record]), [lm]) == []
    # Any text and tokenizer, and whatever the study is called.
    record["config"] |= {"study": "lm_340m", "task": {"name": "lm", "options": {}, "version": 1}}
    record["metrics"] = {"test/bits_per_byte": 1.0, "validation/bits_per_byte": 1.0}
    lines = published_tables.to_lines(select([record]), [lm])
    text = "\n".join(lines)
    assert "Measured in this study" not in text
    assert "Not tasks of Seqbench: WikiText, LAMBADA." in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    headers, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert headers == ["reported", "here", "WikiText ↓", "LAMBADA ↓", "protocol", "source"]
    assert len(rows) == len(lm.rows)
    assert rows[0][:4] == ["*Samba 1.3B*", "–", "*16.13*", "*13.29*"]
    assert rows[-1][:4] == ["*RetNet 340M*", "`retnet`", "*32.33*", "*49.19*"]
