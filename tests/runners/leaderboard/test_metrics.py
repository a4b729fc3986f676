"""A leaderboard of a loss, and one with another tuned hyperparameter."""

import csv
import io
from decimal import Decimal

import pytest

from runners.core import hyperparameters, identity, store
from runners.core.hyperparameters import Hyperparameter
from runners.leaderboard import build, plots, slice_plot, tables
from runners.leaderboard import published_tables as reported
from runners.leaderboard.published import PublishedColumn, PublishedTable
from tasks import Metric

NAME = "bits_task:Bits"  # beside this file
# Mean validation bits by architecture and learning rate; test bits are 0.1 above.
SCORES = {"gla": {1e-3: 2.0, 1e-2: 1.5}, "mamba": {1e-3: 3.0, 1e-2: 5.0}, "lstm": {1e-3: 6.0}}
STATES = {"gla": 1024, "mamba": 4096, "lstm": 256}


@pytest.fixture
def bits(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parent))


@pytest.fixture
def study(tmp_path, make_record, bits):
    """Three architectures, judged in bits per byte."""

    def make(**options):
        for mixer, rates in SCORES.items():
            for rate, score in rates.items():
                for seed in range(2):
                    store.write(tmp_path, _record(make_record, mixer, seed, rate, score, options))
        return tmp_path

    return make


def _record(make_record, mixer, seed, rate, score, options):
    record = make_record(mixer, seed, rate, d_model=32, state_bytes=STATES[mixer], task=options)
    record["config"]["task"]["name"] = NAME
    score += 0.02 * seed
    record["metrics"] = {
        "validation/bits_per_byte": score,
        "validation/loss": score,
        "test/bits_per_byte": score + 0.1,
        "test/loss": score,
    }
    record["metrics"] |= {f"test/bits_per_byte/seen={n}": score + 1 / (1 + n) for n in range(6)}
    curve = [12.0, score + 0.5, score]
    record["curve"] = {"step": [0, 100, 200], "validation/bits_per_byte": curve}
    return record


def _names(folder):
    lines = [x for x in (folder / "leaderboard.md").read_text().splitlines() if x.startswith("|")]
    names = [line.split("|")[1].strip() for line in lines]
    return names[2 : names.index("architecture", 1)]  # the first table


def test_hyperparameters_rows_and_reference_scores_are_ordered_by_the_smaller(study):
    folder = study()
    board = build.build(folder)
    assert [row.mixer for row in board.rows] == ["gla", "mamba", "lstm"]
    assert [row.tuned["learning_rate"] for row in board.rows] == [1e-2, 1e-3, 1e-3]
    # Two rows beat the unigram: the best of the reference scores is no ceiling.
    assert _names(folder) == ["gla", "mamba", "lstm", "*unigram*", "*uniform*"]
    text = (folder / "leaderboard.md").read_text()
    assert "| test bits_per_byte ↓ |" in text
    assert "| 1.61 ± 0.13 |" in text  # 1.60 and 1.62: s = 0.0141, so 12.706 · 0.0141 / √2 = 0.127
    explained = "Reference scores: *unigram*: counts bytes; *uniform*: gives all bytes one prob"
    assert explained in text
    assert "- ↓: smaller is better." in text
    assert "Test bits_per_byte in bits ↓ by slice" in text
    assert "| gla (32) | 2.51 | 2.01 |" in text


def test_a_known_optimum_stands_above(study):
    folder = study(known=True)
    build.build(folder)
    names = ["*entropy*", "gla", "mamba", "lstm", "*unigram*", "*uniform*"]
    assert _names(folder) == names


def test_csv(study):
    folder = study(known=True)
    build.build(folder)
    rows = list(csv.DictReader(io.StringIO((folder / "leaderboard.csv").read_text())))
    assert [r["label"] for r in rows] == ["gla", "mamba", "lstm", "entropy", "unigram", "uniform"]
    assert [r["kind"] for r in rows] == ["measured"] * 3 + ["reference"] * 3
    assert {r["metric"] for r in rows} == {"bits_per_byte"}
    assert float(rows[0]["mean"]) == pytest.approx(1.61)
    assert float(rows[0]["slice seen=0"]) == pytest.approx(2.51)
    assert float(rows[3]["mean"]) == 1.0


def test_plots(study):
    folder = study()
    board = build.build(folder)
    pictures = plots.draw_all(board)
    assert set(pictures) == {"plots/state.png", "plots/curves.png", slice_plot.NAME}
    (panel,) = pictures["plots/state.png"].axes
    assert panel.get_ylabel() == "test bits_per_byte in bits ↓\n(mean of 2 seeds, 95% interval)"
    front = next(line for line in panel.lines if line.get_label() == "Pareto front")
    # From the smallest state: the LSTM's 6.11 bits, then GLA's 1.61; Mamba is on no front.
    assert sorted(set(front.get_ydata()), reverse=True) == pytest.approx([6.11, 1.61])
    low, high = panel.get_ylim()
    assert low < 1.61
    assert high > 8.0

    (panel,) = pictures["plots/curves.png"].axes
    low, high = panel.get_ylim()
    assert low < 1.5, "what beats every reference score is within the frame"
    assert high > 12, "so is what is worse than all of them"
    (panel,) = pictures[slice_plot.NAME].axes
    assert panel.get_title("left") == "bits_per_byte in bits ↓"
    assert "↓: smaller is better." in plots.captions(board)[slice_plot.NAME]


def test_published_numbers_are_ranked_by_their_own_direction(study):
    board = build.build(study())
    table = PublishedTable(
        title="Bytes",
        description="Bits.",
        metric=Metric("bits_per_byte", higher_is_better=False, digits=1),
        scale=Decimal(1),
        mark="",
        value=None,
        columns={"bytes": PublishedColumn("Bytes", NAME, ({},))},
        beside=(),
        averages={},
        notes=(),
        rows=(),
    )
    lines = reported.to_lines(board.sections, [table])
    rows = [line for line in lines if line.startswith("| ") and "bits" not in line]
    assert [row.split("|")[1].strip() for row in rows[2:5]] == ["gla", "mamba", "lstm"]


def test_another_tuned_hyperparameter_costs_one_line(tmp_path, make_record, monkeypatch):
    beta = Hyperparameter("optimizer.b2", "b2")
    monkeypatch.setattr(hyperparameters, "TUNED", (*hyperparameters.TUNED, beta))
    monkeypatch.setattr(identity, "HYPERPARAMETERS", (*hyperparameters.HYPERPARAMETERS, beta))
    for b2, score in ((0.9, 0.2), (0.99, 0.6)):
        record = make_record(test=score)
        record["config"]["optimizer"]["b2"] = b2
        store.write(tmp_path, record)
    board = build.build(tmp_path)
    (row,) = board.rows
    assert row.tuned == {"learning_rate": 1e-3, "weight_decay": 0.1, "b2": 0.99}
    assert row.candidates == 2
    headers, (_, line, *_) = tables.section_table(board, board.sections[0], wide=True)
    assert dict(zip(headers, line.cells, strict=True))["b2"] == "0.99"
    assert "wd" not in headers  # it does not vary
    (first, *_) = csv.DictReader(io.StringIO((tmp_path / "leaderboard.csv").read_text()))
    assert (first["weight_decay"], first["b2"]) == ("0.1", "0.99")
    assert list(first).index("b2") == list(first).index("weight_decay") + 1
    text = (tmp_path / "leaderboard.md").read_text()
    assert "of 2 combinations of learning rate, weight decay and b2 the one" in text
