"""Slices that are words: their table with intervals and reference scores, and their plot."""

import dataclasses

import pytest
from scipy import stats

from runners.core import store
from runners.leaderboard import build, plots, selection, slice_tables, word_slice_plot
from tasks import Slice

HITS, OTHER = Slice("accuracy", (("hits", None),)), Slice("accuracy", (("other", None),))


@pytest.fixture
def board(tmp_path, make_record):
    """Two architectures with two seeds each, two words and a number, judged with an oracle."""
    for mixer, score in (("gla", 0.5), ("mamba", 0.75)):
        for seed in range(2):
            record = make_record(mixer, seed=seed, test=score)
            record["metrics"] |= {
                "test/accuracy/hits": score + 0.02 * seed,
                "test/accuracy/other": score - 0.1,
                "test/accuracy/words=3": score,
            }
            store.write(tmp_path, record)
    board = build.build(tmp_path)
    (section,) = board.sections
    judge = dataclasses.replace(
        section.judge,
        slice_notes={"hits": "tokens seen before"},
        reference_scores={"oracle": 1.0, "chance": 0.25, "unknown": 0.5},
        reference_metrics={
            "chance": {HITS: 0.25, OTHER: 0.25},
            "oracle": {HITS: 1.0, OTHER: 0.8},
            "unknown": {HITS: 0.5},
        },
    )
    return dataclasses.replace(board, sections=(dataclasses.replace(section, judge=judge),))


def test_intervals_are_students(board):
    (row, _) = board.sections[0].rows
    assert row.metrics[HITS] == pytest.approx(0.76)
    # 0.75 and 0.77: s = 0.01414, so 12.706 · 0.01414 / √2.
    assert row.half_widths[HITS] == pytest.approx(0.12706, rel=1e-4)
    assert row.half_widths[OTHER] == 0


def test_words_have_a_table_of_their_own(board):
    lines = slice_tables.to_lines(board.sections[0])
    rows = [line for line in lines if line.startswith("| ") and "---" not in line]
    assert rows == [
        "| architecture | hits | other |",
        "| mamba (64) | 0.760 ± 0.127 | 0.650 ± 0.000 |",
        "| gla (64) | 0.510 ± 0.127 | 0.400 ± 0.000 |",
        "| *oracle* | *1.000* | *0.800* |",
        "| *chance* | *0.250* | *0.250* |",
        "| architecture | hits | other |",
        "| gla (64) | 0.250 ± 0.061 | 0.250 ± 0.000 |",
        "| architecture | words=3 |",
        "| mamba (64) | 0.750 |",
        "| gla (64) | 0.500 |",
    ]
    assert "`hits`: tokens seen before." in lines


def test_the_interval_of_a_gap_is_welchs():
    first, second = [0.1, 0.4, 0.3], [0.9, 0.5, 0.6, 0.7]
    found = selection.gap_half_width(*((selection.half_width(v), len(v)) for v in (first, second)))
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert found == pytest.approx((interval.high - interval.low) / 2)


def test_one_seed_has_no_interval(board):
    (section,) = board.sections
    rows = tuple(dataclasses.replace(row, half_widths={}) for row in section.rows)
    lines = slice_tables.to_lines(dataclasses.replace(section, rows=rows))
    assert not any("±" in line for line in lines)


def test_plot(board):
    drawing = plots.draw_all(board)[word_slice_plot.NAME]
    hits, other = drawing.axes
    assert [panel.get_title("left") for panel in drawing.axes] == ["hits", "other"]
    assert [label.get_text() for label in hits.get_yticklabels()] == ["gla", "mamba"]
    assert [text.get_text() for text in hits.texts] == ["chance", "oracle", "unknown"]
    assert [text.get_text() for text in other.texts] == ["chance", "oracle"]
    assert "hits: tokens seen before" in word_slice_plot.caption(board)
    assert "95% interval over seeds" in word_slice_plot.caption(board)


def test_studies_without_words_have_no_plot(tmp_path, make_record):
    store.write(tmp_path, make_record("gla", test=0.5))
    assert word_slice_plot.NAME not in plots.captions(build.build(tmp_path))
