"""Pictures of studies with many architectures: every name is there, and near what it names."""

import pytest

from runners.core import naming, store
from runners.leaderboard import build, plots, selection
from runners.leaderboard.judge import Judge
from tasks import Metric


@pytest.fixture
def board(tmp_path, make_record):
    for i in range(16):
        mixer, score = ["base_conv", f"mixer{i}"], 0.9 if i < 12 else i / 16 - 0.5
        record = make_record(mixer, test=score, state_bytes=4096)
        store.write(tmp_path, record)
    return build.build(tmp_path)


def texts(picture):
    (panel,) = picture.axes
    return [text.get_text() for text in panel.texts if text.get_text().startswith("mixer")]


def test_many_curves_are_named_at_their_ends(board):
    picture = plots.draw_all(board)["plots/curves.png"]
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
    store.write(tmp_path, record)
    (panel,) = plots.draw_all(build.build(tmp_path))["plots/curves.png"].axes
    assert panel.get_ylim()[0] < -1.0


def test_a_far_label_is_joined_to_its_point(board):
    picture = plots.draw_all(board)["plots/state.png"]
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
    assert naming.shared_start(mixers) == start


# Chance of one task is above all scores of the other.
JUDGES = {
    "mqar": Judge(Metric("accuracy"), reference_scores={"chance": 0.01}),
    "icll": Judge(Metric("validity"), reference_scores={"uniform": 0.5, "oracle": 1.0}),
}


@pytest.fixture
def two_tasks(tmp_path, make_record, monkeypatch):
    """A study of two tasks with metrics of their own, one of them with two settings."""
    monkeypatch.setattr(selection, "judge", lambda task, kept: JUDGES[task["name"]])
    for name, options, scores in (
        ("mqar", {"vocab_size": 8, "length": 16}, (0.02, 0.1)),
        ("mqar", {"vocab_size": 8, "length": 32}, (0.1, 0.3)),
        ("icll", {"num_test_examples": 8}, (0.9, 0.99)),
    ):
        metric = JUDGES[name].metric.name
        for mixer, score in zip(("gla", "mamba"), scores, strict=True):
            record = make_record(mixer, task=options, state_bytes=None)
            record["config"]["task"]["name"] = name
            record["metrics"] = {f"{split}/{metric}": score for split in ("validation", "test")}
            record["curve"] = {"step": [0, 40_000], f"validation/{metric}": [score / 2, score]}
            store.write(tmp_path, record)
    return build.build(tmp_path)


def test_tasks_have_panels_and_axes_of_their_own(two_tasks, tmp_path):
    picture = plots.draw_all(two_tasks)["plots/curves.png"]
    titles = ["icll", "mqar, length=16", "mqar, length=32"]
    assert [panel.get_title("left") for panel in picture.axes] == titles
    assert [panel.get_ylabel() for panel in picture.axes] == ["validity", "accuracy", "accuracy"]
    assert "score" in picture.get_supylabel()
    for panel in picture.axes:
        low, high = panel.get_ylim()
        values = [value for line in panel.lines for value in line.get_ydata()]
        assert low <= min(values)
        assert max(values) <= high
        assert "40k" in [label.get_text() for label in panel.get_xticklabels()]
    text = (tmp_path / "leaderboard.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")][:3] == [
        f"## {title}" for title in titles
    ]
    assert "Tasks `icll` (num_test_examples=8), `mqar` (vocab_size=8), 6 trials" in text


def test_panels_of_one_task_share_an_axis(tmp_path, make_record):
    for length in (64, 128):
        task = {"vocab_size": 512, "length": length, "num_kv_pairs": 4}
        store.write(tmp_path, make_record(task=task, test=length / 200))
    picture = plots.draw_all(build.build(tmp_path))["plots/curves.png"]
    assert len({panel.get_ylim() for panel in picture.axes}) == 1
    assert picture.get_supylabel().startswith("validation accuracy")


def test_a_study_without_states_has_no_column_for_them(two_tasks, tmp_path, make_record):
    text = (tmp_path / "leaderboard.md").read_text()
    assert "state" not in text
    store.write(tmp_path, make_record("hyena", state_bytes=4096))
    build.build(tmp_path)
    assert "| state |" in (tmp_path / "leaderboard.md").read_text()
