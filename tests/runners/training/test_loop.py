"""A population on the host's side: early stop, several devices, signals kept to the end."""

import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from runners.core import identity
from runners.core.reporter import Reporter
from runners.core.run_options import RunOptions
from runners.study import config
from runners.training.loop import train

TINY = str(Path(__file__).parents[1] / "tiny_study.py")


def trials(count=2, **train):
    settings = config.Study(TINY).base_trial()
    settings["train"] |= train
    made = []
    for seed in range(count):
        made.append(copy.deepcopy(settings))
        made[-1]["seed"] = seed
    return made


def run(folder, settings):
    configs = {identity.trial_id(t): t for t in settings}
    reporter = Reporter(Console(file=io.StringIO()))
    options = RunOptions(checkpoint_seconds=3600)
    return train(configs, folder, folder / "runs" / "population", reporter, options).records


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), trials())


def test_a_solved_trial_stops_and_the_other_goes_on(tmp_path, whole):
    """The threshold lies between what the two trials reach, so that it stops exactly one."""
    curves = [r["curve"]["validation/accuracy"] for r in whole]
    threshold = max(max(c) for c in curves)
    winner = 0 if max(curves[0]) == threshold else 1
    assert max(curves[1 - winner]) < threshold, "choose other seeds: this pair cannot be told apart"
    records = run(tmp_path, trials(stop_at=threshold))
    solved, other = records[winner], records[1 - winner]
    reached = curves[winner].index(threshold)
    steps = whole[winner]["curve"]["step"][reached]
    assert solved["steps"] == steps
    assert solved["curve"]["step"] == whole[winner]["curve"]["step"][: reached + 1]
    assert solved["metrics"]["validation/accuracy"] == threshold
    for key in ("metrics", "curve", "steps"):  # what happened beside it changed no bit
        assert other[key] == whole[1 - winner][key]


def test_two_devices_train_what_one_does(tmp_path, whole):
    """Each device holds one trial: batched products of one, as in a population of one.

    Differences are float32 rounding (6e-8 a step) through 24 steps of Adam.
    """
    code = (
        f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        "import test_loop as t; from pathlib import Path; import jax; "
        "assert jax.local_device_count() == 2; "
        f"records = t.run(Path({str(tmp_path)!r}), t.trials()); "
        "print(json.dumps([r['metrics'] for r in records]))"
    )
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    for record, metrics in zip(whole, json.loads(process.stdout.splitlines()[-1]), strict=True):
        assert metrics["test/loss"] == pytest.approx(record["metrics"]["test/loss"], rel=1e-3)
