"""The study of the Long Range Arena: its presets, and every published recipe at its full length."""

import json
import logging

import jax
import numpy as np
import pytest

import tasks
from runners.core.errors import ConfigError
from runners.study import config
from runners.training.hyper import stack
from runners.training.mixture import parts_of
from runners.training.program import MAX_STEPS, Steps, TrainProgram

RECIPES = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
STEPS, BATCH = 200, 2
LOG = logging.getLogger(__name__)


def test_the_bare_name_needs_no_download():
    for trial in config.Study("lra.py").trials():
        assert trial["task"]["name"] in ("lra_listops", "lra_pathfinder", "digits")
        assert not trial["task"]["options"].get("release")


def test_every_row_has_three_seeds():
    for preset in ("lra.py", "lra.py:paper"):
        seeds = {}
        for trial in config.Study(preset).trials():
            key = json.dumps({k: trial[k] for k in ("model", "task")}, sort_keys=True)
            seeds.setdefault(key, []).append(trial["seed"])
        assert set(map(tuple, seeds.values())) == {(0, 1, 2)}


def test_paper_has_the_six_tasks_with_the_recipes_of_s4():
    """Layers, width, state, rate, batch and epochs as protocols state them."""
    expected = {
        "lra_listops": (6, 256, 4, 0.01, 32, 40),
        "lra_text": (6, 256, 4, 0.01, 16, 32),
        "lra_retrieval": (6, 256, 4, 0.01, 64, 20),
        "lra_image": (6, 512, 64, 0.01, 50, 200),
        "lra_pathfinder": (6, 256, 64, 0.004, 64, 200),
        "pathx": (6, 256, 64, 0.001, 16, 50),
    }
    found = {}
    for trial in config.Study("lra.py:paper").trials():
        model, task = trial["model"], trial["task"]
        if model["mixer"] == "s4d":
            pathx = task["options"].get("size") == 128
            assert (model["mixer_options"].get("dt_min") == 1e-4) == pathx
            assert model.get("dropout", 0.0) == (0.1 if task["name"] == "lra_image" else 0.0)
            found["pathx" if pathx else task["name"]] = (
                model["num_layers"],
                model["d_model"],
                model["mixer_options"]["d_state"],
                trial["optimizer"]["learning_rate"],
                trial["train"]["batch_size"],
                trial["train"]["epochs"],
            )
            assert trial["train"]["eval_every"] is None  # after every epoch
            assert trial["optimizer"]["schedule"] == "cosine"
            assert trial["optimizer"]["warmup_fraction"] == 0.1
            assert trial["optimizer"]["ssm_learning_rate"] == 1e-3
    assert found == expected


@pytest.mark.parametrize("preset", ["laptop", "paper"])
def test_a_preset_takes_a_task_and_architectures(preset):
    trials = config.Study(f"lra.py:{preset},task=listops,mixer=gla+mamba").trials()
    assert {trial["task"]["name"] for trial in trials} == {"lra_listops"}
    held = {trial["model"]["mixer_options"]["mixer"] for trial in trials}
    assert held == {"gla", "mamba"}
    assert {trial["model"]["mixer"] for trial in trials} == {"bidirectional"}


def test_what_sees_both_ways_is_not_wrapped():
    trials = config.Study("lra.py:laptop,task=digits,mixer=orchid+gla").trials()
    assert {trial["model"]["mixer"] for trial in trials} == {"orchid", "bidirectional"}


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("sofa", "unknown preset 'sofa'"),
        ("paper,task=digits", "unknown task 'digits' of paper.*listops"),
        ("paper,tusk=listops", "unknown preset 'paper,tusk=listops'"),
    ],
)
def test_a_wrong_preset_is_named(preset, words):
    with pytest.raises(ConfigError, match=words):
        config.Study(f"lra.py:{preset}")


def recipe(task):
    (found,) = (
        trial
        for trial in config.Study(
            f"lra.py:paper,task={task}",
            {"train.batch_size": BATCH, "train.steps": STEPS, "train.epochs": "none"},
        ).trials()
        if trial["model"]["mixer"] == "s4d" and trial["seed"] == 0
    )
    return found


def stand_in(task, rng):
    """Rows [1, 1, B, …] whose bytes depend on their class, so that they can be learnt."""
    shape, labels = (1, 1, BATCH), rng.integers(task.num_classes, size=(1, 1, BATCH))
    rows = {"label": labels.astype(np.int32)}
    inputs = task.spec["inputs"].shape
    top = min(256, task.vocab_size or 256)
    centre = (labels + 1) * top / (task.num_classes + 1)
    noise = rng.normal(size=(*shape, *inputs)) * top / task.num_classes
    centre = centre.reshape(*shape, *[1] * len(inputs))
    rows["inputs"] = np.clip(centre + noise, 0, top - 1).astype(np.uint8)
    if "length" in task.spec:
        longest = inputs[-1]
        lengths = rng.integers(longest // 2, longest + 1, (*shape, *inputs[:-1]))
        rows["length"] = lengths.astype(np.int32)
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("task", RECIPES)
def test_a_published_recipe_trains_at_its_full_length(task):
    """200 steps of two rows with the real sizes of everything else; the rows are stand-ins.

    Memory and losses: pytest -m slow -o log_cli=true -o log_cli_level=INFO.
    """
    program = TrainProgram(recipe(task), stream=True)
    hyper = stack([program.config])
    rng, state, losses = np.random.default_rng(0), program.initial(hyper["seed"]), []
    for step in range(STEPS):
        given = tasks.Given(streamed=stand_in(program.task, rng))
        parts = parts_of(program.train_parts, BATCH, step, step + 1, MAX_STEPS)
        steps = Steps(np.int32(step), np.int32(step + 1), *parts, given)
        if not step:
            advance = program.compile(state, hyper, steps)
            memory = advance.peak_memory_bytes / 2**30
            LOG.info("%s: %d parameters, %.2f GiB", task, program.num_parameters, memory)
        before = float(state.loss[0])
        state = advance.call(state, hyper, steps)
        losses.append(float(state.loss[0]) - before)
    first, last = np.mean(losses[:20]), np.mean(losses[-20:])
    LOG.info("%s: loss %.3f in the first 20 steps, %.3f in the last", task, first, last)
    assert np.isfinite(losses).all()
    assert last < 0.7 * first
    assert jax.tree.all(jax.tree.map(lambda x: bool(np.isfinite(x).all()), state.params))
