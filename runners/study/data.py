"""Data of a study: brings what its tasks store to this machine before anything trains."""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import tasks
from runners.core import naming
from runners.core.format import duration
from runners.core.reporter import Reporter


def prepare(configs: Iterable[Mapping[str, Any]], reporter: Reporter) -> dict[str, str]:
    """Generates or downloads what the tasks of these trials need and is not here.

    Returns:
      What is missing and how to provide it, by the task's configuration as `naming.to_json` has it.
    """
    missing = {}
    for described in dict.fromkeys(naming.to_json(config["task"]) for config in configs):
        config = json.loads(described)
        task = tasks.build(config["name"], **config["options"])
        rows = task.num_stored_rows
        if not rows:
            continue
        reporter.line(f"  {config['name']}: data, {rows:,} {task.stored_unit}s")
        began = time.monotonic()
        try:
            with reporter.work(f"  {config['name']}", rows, 0, task.stored_unit, ""):
                task.prepare(lambda done, _: reporter.update(done, ""))
        except (tasks.DataMissingError, ValueError, TypeError, ImportError) as error:
            # Whatever is wrong with the data of one task must not take the others with it.
            missing[described] = str(error)
            reporter.line(f"  {config['name']}: no data: {error}", "red")
            continue
        seconds = time.monotonic() - began
        if seconds >= 1:
            reporter.line(f"  {config['name']}: data prepared in {duration(seconds)}")
    return missing
