"""Claims: whatever two processes see of each other, and wherever one dies, a trial runs once."""

import json
from pathlib import Path

import pytest

from runners.core import identity, store
from runners.core.errors import ConfigError
from runners.study import config, plan

TINY = str(Path(__file__).parents[1] / "tiny_study.py")


@pytest.fixture
def trials():
    return [(identity.trial_id(t), t) for t in config.Study(TINY).trials()]


def make(workdir, trials, **options):
    return plan.make(workdir, trials, **({"rerun": False, "claim": True} | options))


def write_records(workdir, run, make_record, status="done"):
    for trial, settings in run.trials.items():
        record = make_record() | {"id": trial, "config": settings, "run": run.name}
        store.write(workdir, record | {"status": status})


def test_a_second_plan_claims_nothing_new(tmp_path, trials):
    first, second = make(tmp_path, trials), make(tmp_path, trials)
    assert len(first.runs) == 2
    assert {r.name for r in first.runs} == {r.name for r in second.runs}


def test_a_subset_joins_the_population_that_owns_it(tmp_path, trials):
    first = make(tmp_path, trials)
    subset = make(tmp_path, trials[:1])
    assert [r.name for r in subset.runs] == [first.runs[0].name]
    assert len(subset.runs[0].trials) == 4


def test_a_population_that_ends_while_another_plans_is_not_run_again(
    tmp_path, trials, make_record, monkeypatch
):
    """Records are written, and the manifest finished, between the two reads of a second planner."""
    first = make(tmp_path, trials)
    read_all = store.read_all

    def ends_just_before(workdir):
        for run in first.runs:
            if plan.missing(run, {r["id"]: r for r in read_all(workdir)}):
                write_records(workdir, run, make_record)
                plan.finish(run)
        return read_all(workdir)

    monkeypatch.setattr(store, "read_all", ends_just_before)
    second = make(tmp_path, trials)
    assert {r.name for r in second.runs} <= {r.name for r in first.runs}
    assert make(tmp_path, trials).runs == []


def test_a_run_that_died_before_its_manifest_is_finished_by_the_next(tmp_path, trials, make_record):
    first = make(tmp_path, trials)
    for run in first.runs:
        write_records(tmp_path, run, make_record)
        (run.folder / "checkpoints").mkdir()
    second = make(tmp_path, trials)
    assert second.runs == []
    assert len(second.done) == 8
    for run in first.runs:
        assert plan.Run.read(run.folder).finished
        assert not (run.folder / "checkpoints").exists()
    again = make(tmp_path, trials, rerun=True)
    assert {r.name for r in again.runs}.isdisjoint(r.name for r in first.runs)


def test_a_rerun_where_only_records_remain_is_a_new_run(tmp_path, trials, make_record):
    first = make(tmp_path, trials)
    for run in first.runs:
        write_records(tmp_path, run, make_record)
    records = tmp_path / "elsewhere"
    records.mkdir()
    (tmp_path / "trials").rename(records / "trials")  # a fresh clone has no runs/
    again = make(records, trials, rerun=True)
    taken = {r["id"]: r for r in store.read_all(records)}
    assert [len(plan.missing(run, taken)) for run in again.runs] == [4, 4]


def test_an_interrupted_rerun_goes_on_without_the_flag(tmp_path, trials, make_record):
    for run in make(tmp_path, trials).runs:
        write_records(tmp_path, run, make_record)
    rerun = make(tmp_path, trials, rerun=True)
    write_records(tmp_path, rerun.runs[0], make_record)
    plan.finish(rerun.runs[0])
    rest = make(tmp_path, trials)
    assert [r.name for r in rest.runs] == [rerun.runs[1].name]


def test_a_failed_trial_is_tried_again_by_the_same_run(tmp_path, trials, make_record):
    first = make(tmp_path, trials)
    for run in first.runs:
        write_records(tmp_path, run, make_record, status="failed")
    assert {r.name for r in make(tmp_path, trials).runs} == {r.name for r in first.runs}


def test_a_population_is_no_larger_than_asked_for(tmp_path, trials):
    runs = make(tmp_path, trials, population_size=3).runs
    assert sorted(len(r.trials) for r in runs) == [1, 1, 3, 3]
    assert {t for r in runs for t in r.trials} == {t for t, _ in trials}


def test_planning_without_claiming_writes_nothing(tmp_path, trials):
    assert len(make(tmp_path / "w", trials, claim=False).runs) == 2
    assert not (tmp_path / "w").exists()


def test_a_damaged_manifest_is_named(tmp_path, trials):
    path = make(tmp_path, trials).runs[0].folder / "population.json"
    path.write_text(json.dumps({"trials": {}}))
    with pytest.raises(ConfigError, match=r"population\.json is damaged"):
        make(tmp_path, trials)
