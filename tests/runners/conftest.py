import copy

import pytest


@pytest.fixture
def make_record():
    """Makes a valid record; keywords set fields of the record, of its configuration, or scores."""
    count = 0

    def make(
        mixer="gla",
        seed=0,
        learning_rate=1e-3,
        weight_decay=0.1,
        test=0.5,
        validation=None,
        loss=1.0,
        d_model=64,
        options=None,
        task=None,
        **fields,
    ):
        nonlocal count
        count += 1
        validation = test if validation is None else validation
        task = {"vocab_size": 512, "length": 64, "num_kv_pairs": 4} if task is None else task
        record = {
            "id": f"trial-{count:03d}",
            "study": "mqar",
            "config": {
                "study": "mqar",
                "seed": seed,
                "model": {
                    "mixer": mixer,
                    "options": options or {},
                    "d_model": d_model,
                    "num_layers": 2,
                    "version": {},
                },
                "task": {"name": "mqar", "options": task, "version": 1},
                "optimizer": {"learning_rate": learning_rate, "weight_decay": weight_decay},
            },
            "status": "done",
            "error": None,
            "metrics": {
                "test/accuracy": test,
                "test/loss": loss,
                "validation/accuracy": validation,
                "validation/loss": loss,
            },
            "curve": {
                "step": [0, 100, 200],
                "train/loss": [6.0, 2.0, 1.0],
                "validation/accuracy": [0.0, None, validation],
            },
            "parameters": 50_000,
            "state_bytes": 4096,
            "flops_per_step": 1e9,
            "steps": 200,
            "examples_per_second": 1000.0,
            "compile_seconds": 1.0,
            "train_seconds": 10.0,
            "peak_memory_bytes": None,
            "provenance": {
                "git_commit": "a" * 40,
                "git_dirty": False,
                "versions": {"jax": "0.10.2"},
                "device_kind": "cpu",
                "device_count": 1,
                "host_platform": "Linux",
                "command": "python -m runners.sweep --config mqar.py",
                "start_time": "2026-01-02T03:04:05+00:00",
            },
        }
        if fields.get("status", "done") != "done":
            record["metrics"] = {}
            record["curve"] = {}
        return copy.deepcopy(record | fields)

    return make
