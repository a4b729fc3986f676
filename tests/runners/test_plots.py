"""Pictures of studies with many architectures: every name is there, and near what it names."""

import pytest

from runners import labels, leaderboard, plots, results


@pytest.fixture
def board(tmp_path, make_record):
    for i in range(16):
        mixer, score = ["base_conv", f"mixer{i}"], 0.9 if i < 12 else i / 16 - 0.5
        record = make_record(mixer, test=score, state_bytes=4096)
        results.write(tmp_path, record)
    return leaderboard.build(tmp_path)


def texts(picture):
    (panel,) = picture.axes
    return [text.get_text() for text in panel.texts if text.get_text().startswith("mixer")]


def test_many_curves_are_named_at_their_ends(board):
    picture = plots.figures(board)["plots/curves.png"]
    (panel,) = picture.axes
    assert len(texts(picture)) == len(set(texts(picture))) == 16
    assert not picture.legends
    heights = [t.get_position()[1] for t in panel.texts if t.get_text().startswith("mixer")]
    assert heights == sorted(heights, reverse=True)
    names = texts(picture)  # from the best down
    assert names[-1] == "mixer12"


def test_curves_that_begin_below_chance_are_within_the_frame(tmp_path, make_record):
    record = make_record("gla", test=0.5, validation=0.5)
    record["curve"]["validation/accuracy"] = [-1.0, 0.2, 0.5]
    results.write(tmp_path, record)
    (panel,) = plots.figures(leaderboard.build(tmp_path))["plots/curves.png"].axes
    assert panel.get_ylim()[0] < -1.0


def test_a_far_label_is_joined_to_its_point(board):
    picture = plots.figures(board)["plots/state.png"]
    (panel,) = picture.axes
    assert sorted(texts(picture)) == sorted(f"mixer{i}" for i in range(16))
    joins = [text for text in panel.texts if text.get_text() == "" and text.arrow_patch]
    assert joins  # twelve in one place
    points = {(row.state_bytes, row.mean) for row in board.rows}
    assert all(join.xy in points for join in joins)


def test_the_caption_says_what_the_names_leave_out(board):
    assert all("'base_conv+'" in caption for caption in plots.captions(board).values())


@pytest.mark.parametrize(
    ("mixers", "start"),
    [
        (["base_conv+gla", "base_conv+s4d", "2×base_conv"], "base_conv+"),
        (["base_conv+gla", "attention", "mamba"], ""),
        (["base_conv+gla", "base_conv+s4d"], ""),  # two names fit as they are
        (["gla", "attention", "mamba"], ""),
        ([], ""),
    ],
)
def test_shared_start(mixers, start):
    assert labels.shared_start(mixers) == start
