import logging
import math

import pytest

import arch
import tasks
from runners.core import naming
from runners.core.errors import ResultsError
from runners.leaderboard import selection
from tasks import Slice


def only_row(records):
    (section,) = selection.select(records)
    (row,) = section.rows
    return row


def test_half_width_against_the_table():
    # s = 0.1 exactly; the printed quantiles t(0.975; n − 1) have four digits.
    assert selection.half_width([0.4, 0.5, 0.6]) == pytest.approx(
        4.303 * 0.1 / math.sqrt(3), rel=2e-4
    )
    assert selection.half_width([0.0, 1.0]) == pytest.approx(12.71 * math.sqrt(0.5 / 2), rel=5e-4)
    five = [1.0, 2.0, 3.0, 4.0, 5.0]  # s² = 2.5
    assert selection.half_width(five) == pytest.approx(2.776 * math.sqrt(0.5), rel=2e-4)
    assert selection.half_width([0.5]) is None
    assert selection.half_width([]) is None
    assert selection.half_width([1.0, 1.0, 1.0]) == 0.0


def test_chosen_on_validation_reported_on_test(make_record):
    records = []
    for rate, validation, test in ((1e-3, 0.6, 0.9), (1e-2, 0.7, 0.5)):
        for seed, shift in enumerate((-0.1, 0.0, 0.1)):
            records.append(
                make_record(
                    seed=seed,
                    learning_rate=rate,
                    validation=validation + shift,
                    test=test + shift,
                    train_seconds=10.0 + seed,
                )
            )
    row = only_row(records)
    assert row.tuned["learning_rate"] == 1e-2
    assert row.mean == pytest.approx(0.5)
    assert row.validation == pytest.approx(0.7)
    assert row.half_width == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=2e-4)
    assert row.scores == ((0, 0.4), (1, 0.5), (2, 0.6))
    assert (row.done, row.diverged, row.failed, row.candidates) == (3, 0, 0, 2)
    assert row.train_seconds == 11.0
    assert len(row.curves) == 3


def test_weight_decay_is_chosen_too(make_record):
    records = [make_record(weight_decay=w, test=t) for w, t in ((0.0, 0.3), (0.1, 0.2))]
    assert only_row(records).tuned["weight_decay"] == 0.0


def test_ties_go_to_the_lower_validation_loss(make_record):
    rates = {1e-4: 0.3, 1e-3: 0.1, 1e-2: 0.2}
    records = [make_record(learning_rate=r, test=1.0, loss=loss) for r, loss in rates.items()]
    assert only_row(records).tuned["learning_rate"] == 1e-3
    same = [make_record(learning_rate=r, test=1.0, loss=0.1) for r in (1e-2, 1e-4)]
    assert only_row(same).tuned == only_row(same[::-1]).tuned
    assert only_row(same).tuned["learning_rate"] == 1e-4


def test_fewer_lost_seeds_first(make_record):
    records = [make_record(seed=s, learning_rate=1e-3, test=0.5) for s in range(3)]
    records += [make_record(seed=s, learning_rate=1e-2, test=0.9) for s in range(2)]
    records += [make_record(seed=2, learning_rate=1e-2, status="diverged")]
    row = only_row(records)
    assert (row.tuned["learning_rate"], row.mean) == (1e-3, 0.5)
    assert (row.done, row.diverged) == (3, 0)


def test_more_seeds_are_no_merit(make_record):
    records = [make_record(seed=s, learning_rate=1e-3, test=0.1) for s in range(4)]
    records += [make_record(seed=s, learning_rate=1e-2, test=0.99) for s in range(3)]
    assert only_row(records).tuned["learning_rate"] == 1e-2


def test_what_survives_comes_before_what_does_not(make_record):
    records = [make_record(learning_rate=1e-3, status="diverged")]
    records += [make_record(seed=s, learning_rate=1e-2, status="diverged") for s in range(2)]
    records += [make_record(seed=2, learning_rate=1e-2, test=0.5)]
    row = only_row(records)
    assert (row.tuned["learning_rate"], row.done, row.diverged) == (1e-2, 1, 2)


def test_a_renamed_study_keeps_its_entries(make_record):
    records = [make_record(seed=s, test=0.5) for s in range(2)]
    records[1]["config"] |= {"study": "renamed", "preset": "other"}
    row = only_row(records)
    assert (row.label, row.done) == ("gla", 2)


def test_lost_seeds_are_counted_not_averaged(make_record):
    records = [make_record(seed=s, test=0.5 + 0.1 * s) for s in range(2)]
    records += [make_record(seed=2, status="diverged"), make_record(seed=3, status="failed")]
    records[-1]["error"] = "out of memory"
    nan = make_record(seed=4)
    nan["metrics"]["test/accuracy"] = None  # a NaN, as the store writes it
    row = only_row([*records, nan])
    assert row.mean == pytest.approx(0.55)
    assert [seed for seed, _ in row.scores] == [0, 1]
    assert (row.done, row.diverged, row.failed, row.trials) == (2, 2, 1, 5)
    assert row.error == "out of memory"


def test_an_entry_without_survivors_stays(make_record):
    records = [make_record(mixer="gla", test=0.5)]
    records += [
        make_record(mixer="mamba", learning_rate=r, status="failed", error=f"no memory at {r}")
        for r in (1e-3, 1e-2)
    ]
    (section,) = selection.select(records)
    assert [row.label for row in section.rows] == ["gla", "mamba"]
    row = section.rows[1]
    assert row.mean is row.half_width is row.validation is None
    assert row.tuned == {}
    assert (row.failed, row.trials) == (2, 2)
    assert row.error == "no memory at 0.001"


def test_done_without_its_metric_is_an_error(make_record):
    record = make_record()
    del record["metrics"]["validation/accuracy"]
    with pytest.raises(ResultsError, match="trial-001 is done but has no metric 'validation/acc"):
        selection.select([record])


def test_slices_are_means_over_seeds(make_record):
    records = [make_record(seed=s) for s in range(2)]
    for record, score in zip(records, (0.2, 0.4), strict=True):
        record["metrics"]["test/accuracy/length=64"] = score
    records[0]["metrics"]["test/accuracy/length=128"] = 0.9  # not of every seed: no mean to compare
    (section,) = selection.select(records)
    (row,) = section.rows
    assert section.slices(row) == {Slice.of("accuracy", length=64): pytest.approx(0.3)}


def test_reference_scores_and_order(make_record):
    records = [make_record(mixer=m, test=t) for m, t in (("a", 0.1), ("b", 0.9), ("c", 0.1))]
    (section,) = selection.select(records)
    assert [row.label for row in section.rows] == ["b", "a", "c"]
    task = records[0]["config"]["task"]
    built = tasks.build("mqar", **task["options"])
    assert section.judge.reference_scores == built.reference_scores()
    assert section.metric == tasks.Metric("accuracy")
    assert selection.select(records[::-1]) == (section,)


@pytest.mark.parametrize(
    "task", [{"name": "gone"}, {"name": "mqar", "options": {"length": 63}}, {"name": "x:Y"}]
)
def test_a_task_that_is_gone_has_no_reference_scores(make_record, caplog, monkeypatch, task):
    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="absl")  # commands quieten it for their whole process
    record = make_record()
    record["config"]["task"] = task
    (section,) = selection.select([record])
    assert section.judge.reference_scores == {}
    assert "no reference scores for task" in caplog.text


def test_sections_by_task(make_record):
    records = [
        make_record(task={"vocab_size": 512, "length": length, "num_kv_pairs": length // 16})
        for length in (128, 64, 256)
    ]
    sections = selection.select(records)
    assert [section.setting for section in sections] == [
        "length=64, num_kv_pairs=4",
        "length=128, num_kv_pairs=8",
        "length=256, num_kv_pairs=16",
    ]


def test_labels_tell_rows_apart(make_record):
    records = [make_record(mixer="gla", options={"num_heads": h}, d_model=64) for h in (1, 2)]
    records += [make_record(mixer="gla", options={"num_heads": 1}, d_model=128)]
    # Heads that go with the width need no mention: the width has its own column.
    records += [make_record(mixer="s4d", options={"n": d // 8}, d_model=d) for d in (64, 128)]
    records += [make_record(mixer=["attention", "gla", "gla"])]
    (section,) = selection.select(records)
    found = sorted((row.label, row.d_model) for row in section.rows)
    assert found == [
        ("attention+2×gla", 64),
        ("gla num_heads=1", 64),
        ("gla num_heads=1", 128),
        ("gla num_heads=2", 64),
        ("s4d", 64),
        ("s4d", 128),
    ]


def test_versions_are_never_mixed(make_record):
    """What is not of the version that is registered now says so."""
    now = arch.get("gla").version
    records = [make_record(mixer="gla", test=score) for score in (0.4, 0.2, 0.1)]
    for record, version in zip(records, (now + 1, now, now - 1), strict=True):
        record["config"]["model"]["version"] = {"gla": version}
    (section,) = selection.select(records)
    assert [row.label for row in section.rows] == [
        f"gla (gla version {now + 1})",
        "gla",
        f"gla (gla version {now - 1})",
    ]


def test_a_mixer_that_is_not_installed_is_named_with_its_version(make_record):
    record = make_record(mixer="gone:Mixer")
    record["config"]["model"]["version"] = {"gone:Mixer": 3}
    assert only_row([record]).label == "Mixer (gone:Mixer version 3)"


def test_mixer_names():
    assert naming.mixer_name("my_package.my_file:MyMixer") == "MyMixer"
    assert naming.mixer_name(["gla", "gla", "attention", "gla"]) == "2×gla+attention+gla"


def test_a_model_is_named_by_what_its_mixer_holds():
    def named(mixer, options):
        return naming.model_name({"mixer": mixer, "mixer_options": options})

    inner = {"mixer": "mamba", "mixer_options": {}}
    assert named("bidirectional", inner) == "bidirectional(mamba)"
    assert named("bidirectional", {}) == "bidirectional(gla)"  # the default
    assert named("gone:Mixer", inner) == "Mixer"
    pattern = ["gla", "bidirectional", "bidirectional"]
    assert named(pattern, {"bidirectional": inner}) == "gla+2×bidirectional(mamba)"
    assert naming.model_name({"mixer": "gla"}) == "gla"  # a record of early code has no options


def test_wrapped_mixers_are_other_architectures(make_record):
    records = []
    for mixer in ("gla", "mamba"):
        record = make_record("bidirectional")
        record["config"]["model"]["mixer_options"] = {"mixer": mixer, "mixer_options": {}}
        records.append(record)
    (section,) = selection.select(records)
    names = ["bidirectional(gla)", "bidirectional(mamba)"]
    assert [row.mixer for row in section.rows] == [row.label for row in section.rows] == names


def test_sections_are_named_by_what_tells_their_tasks_apart():
    def named(*configs):
        configs = [{"name": n, "options": o, "version": 1} for n, o in configs]
        return [text for _, text in sorted(naming.of_tasks(configs))]

    small, large = {"length": 64, "seed": 3}, {"length": 128, "seed": 3}
    assert named(("mqar", small)) == [""]
    assert named(("mqar", large), ("mqar", small)) == ["length=64", "length=128"]
    assert named(("mqar", large), ("icll", {"words": 2}), ("mqar", small)) == [
        "icll",
        "mqar, length=64",
        "mqar, length=128",
    ]
    assert named(("mqar", small), ("icll", {})) == ["icll", "mqar"]


def test_commits(make_record):
    records = [make_record(seed=s) for s in range(3)]
    records[1]["provenance"] |= {"git_dirty": True}
    records[2]["provenance"] = {}
    assert only_row(records).commits == ("aaaaaaaaaa", "aaaaaaaaaa+", "unknown")
