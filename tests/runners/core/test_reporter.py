"""What a person sees of work that takes long."""

import io

import pytest
from rich.console import Console

import tasks
from runners.core import reporter
from runners.core.reporter import Reporter
from runners.study import data


class Making(tasks.StoredTask):
    """Six rows, of which it tells twice."""

    num_examples = dict.fromkeys(tasks.SPLITS, 2)

    def prepare(self, report=None):
        report(2, 6)
        report(6, 6)


def test_data_that_are_made_are_counted(monkeypatch):
    monkeypatch.setattr(reporter, "PLAIN_INTERVAL", 0.0)
    monkeypatch.setattr(tasks, "build", lambda name, **options: Making())
    written = io.StringIO()
    configs = [{"task": {"name": "making", "options": {}}}]
    assert data.prepare(configs, Reporter(Console(file=written))) == {}
    lines = [line.strip() for line in written.getvalue().splitlines()]
    assert lines[0] == "making: data, 6 rows"
    assert lines[1].startswith("making: row 2/6, at most ")
    assert lines[2] == "making: row 6/6, at most 0 s left"


def test_a_log_is_not_flooded():
    written = io.StringIO()
    reporter = Reporter(Console(file=written))
    with reporter.work("long", 1000, 0, "step", ""):
        for step in range(1000):
            reporter.update(step, "loss 1")
    assert written.getvalue() == ""


def test_what_breaks_off_leaves_no_live_line():
    written = io.StringIO()
    reporter = Reporter(Console(file=written, force_terminal=True))
    with pytest.raises(ValueError, match="broken"), reporter.work("first", 9, 0, "row", ""):
        raise ValueError("broken")
    assert reporter._live is None
    with reporter.work("second", 9, 0, "row", ""):
        reporter.update(9, "")
    assert "second" in written.getvalue()
