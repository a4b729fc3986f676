"""Curves along a number that a test set is sliced by."""

import dataclasses

import pytest

from runners.core import store
from runners.leaderboard import build, plots, slice_plot
from tasks import Metric, Slice


def _board(tmp_path, make_record, slices):
    for mixer, score in (("gla", 0.5), ("mamba", 0.75)):
        for seed in range(2):
            record = make_record(mixer, seed=seed, test=score)
            record["metrics"] |= {f"test/accuracy/{k}": score + i for i, k in enumerate(slices)}
            store.write(tmp_path, record)
    return build.build(tmp_path)


def test_numbers_make_curves(tmp_path, make_record):
    board = _board(tmp_path, make_record, [f"words={n}" for n in (2, 10, 1, 0)])
    assert "words" in plots.captions(board)[slice_plot.NAME]
    (panel,) = plots.draw_all(board)[slice_plot.NAME].axes
    lines = {line.get_label(): line for line in panel.lines}
    assert lines["gla"].get_xdata().tolist() == [0, 1, 2, 10]
    assert lines["gla"].get_ydata().tolist() == [3.5, 2.5, 0.5, 1.5]
    assert set(lines) == {"gla", "mamba"}
    assert (tmp_path / slice_plot.NAME).is_file()


def test_every_metric_has_a_panel_and_reference_predictors_are_drawn(tmp_path, make_record):
    board = _board(tmp_path, make_record, [])
    (section,) = board.sections
    (row, _) = section.rows
    known = {Slice.of(m, words=n): 0.1 * n for m in ("tv", "accuracy") for n in range(5)}
    oracle = {Slice.of("tv", words=0): 0.0, Slice.of("tv", words=1): 0.0}
    judge = dataclasses.replace(
        section.judge,
        secondary=(Metric("tv", higher_is_better=False, unit="nats"),),
        reference_metrics={"oracle": oracle},
    )
    section = dataclasses.replace(
        section, rows=(dataclasses.replace(row, metrics=known),), judge=judge
    )
    board = dataclasses.replace(board, sections=(section,))
    figure = slice_plot.draw(board)
    assert [panel.get_title("left") for panel in figure.axes] == ["accuracy", "tv in nats ↓"]
    assert "↓: smaller is better" in slice_plot.caption(board)
    assert [text.get_text() for text in figure.axes[1].texts] == ["oracle"]
    assert not figure.axes[0].texts


@pytest.mark.parametrize("slices", [[], ["words=1", "words=2"], ["length=64,num_kv_pairs=4"] * 4])
def test_other_slices_make_none(tmp_path, make_record, slices):
    assert slice_plot.NAME not in plots.captions(_board(tmp_path, make_record, slices))
