"""A further traced hyperparameter is one line of the table, and its use in the optimizer."""

import copy
import io
from pathlib import Path

import pytest
from rich.console import Console

from runners.core import hyperparameters, identity
from runners.core.hyperparameters import Hyperparameter
from runners.core.reporter import Reporter
from runners.core.run_options import RunOptions
from runners.study import config
from runners.training import hyper, optimizer
from runners.training.loop import train

TINY = str(Path(__file__).parents[1] / "tiny_study.py")


def run(folder, *trials):
    reporter = Reporter(Console(file=io.StringIO()))
    configs = {identity.trial_id(t): t for t in trials}
    return train(configs, folder, folder / "runs" / "p", reporter, RunOptions()).records


def test_trials_that_differ_in_it_train_as_one_population(tmp_path, monkeypatch):
    base = config.Study(TINY).base_trial()
    trials = [copy.deepcopy(base) for _ in range(2)]
    for trial, b2 in zip(trials, (0.9, 0.999), strict=True):
        trial["optimizer"] |= {"b2": b2, "learning_rate": 0.01}
    alone = [run(tmp_path / str(i), trial)[0] for i, trial in enumerate(trials)]
    assert identity.population_key(trials[0]) != identity.population_key(trials[1])

    table = (*hyperparameters.HYPERPARAMETERS, Hyperparameter("optimizer.b2", "b2"))
    for module in (hyperparameters, identity, hyper):
        monkeypatch.setattr(module, "HYPERPARAMETERS", table)
    adamw = optimizer.adamw

    def adamw_with_traced_b2(settings, traced, factor):
        return adamw(settings | {"b2": traced["b2"]}, traced, factor)

    monkeypatch.setattr(optimizer, "adamw", adamw_with_traced_b2)
    assert identity.population_key(trials[0]) == identity.population_key(trials[1])
    together = run(tmp_path / "together", *trials)
    losses = [record["metrics"]["test/loss"] for record in together]
    assert losses[0] != losses[1]
    for record, single in zip(together, alone, strict=True):
        # A batched product may add in another order: float32 rounding through 24 steps of Adam.
        assert record["metrics"]["test/loss"] == pytest.approx(
            single["metrics"]["test/loss"], rel=1e-3
        )
