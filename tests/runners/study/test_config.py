"""Studies: their trials, and every wrong request named before anything compiles."""

from pathlib import Path

import pytest

from runners.core.errors import ConfigError
from runners.study import config as c

TINY = str(Path(__file__).parents[1] / "tiny_study.py")


def test_trials_are_the_sweep_resolved():
    trials = c.Study(TINY).trials()
    assert len(trials) == 8
    assert {t["model"]["mixer"] for t in trials} == {"attention", "gla"}
    assert trials[0]["task"]["version"] >= 1
    assert trials[0]["model"]["version"] == {"attention": 1}


def test_override_fixes_a_swept_key():
    trials = c.Study(TINY, {"optimizer.learning_rate": "0.5"}).trials()
    assert len(trials) == 4
    assert {t["optimizer"]["learning_rate"] for t in trials} == {0.5}


def test_the_version_of_a_mixer_inside_a_mixer_counts():
    model = {"mixer": "bidirectional", "mixer_options": {"mixer": "s4d"}}
    assert [name for name, _ in c._classes(model)] == ["bidirectional", "s4d"]
    model = {"mixer": ["gla", "bidirectional"], "mixer_options": {}}
    assert sorted(name for name, _ in c._classes(model)) == ["bidirectional", "gla", "gla"]


def test_another_mixer_leaves_the_options_of_the_studys_own_behind():
    trials = c.Study("mqar.py", {"model.mixer": "[base_conv,mamba]"}).trials()
    assert len(trials) == 9  # 3 learning rates × 3 seeds
    assert {str(t["model"]["mixer_options"]) for t in trials} == {"{}"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.d_modle": "32"}, ["d_modle", "model.d_model"]),
        ({"train.stop_above": "0.9"}, ["'train.stop_above' is called 'train.stop_at' now"]),
        ({"modle.d_model": "32"}, ["modle.d_model", "model.d_model"]),
        ({"model.d_model": "wide"}, ["model.d_model", "'wide'", "int"]),
        ({"model.d_model": "1.5"}, ["model.d_model", "1.5", "int"]),
        ({"model": "3"}, ["'model'", "gla-340m"]),
        ({"model.mixer": "atention"}, ["'atention'", "'attention'"]),
        ({"task.name": "mqra"}, ["'mqra'", "'mqar'"]),
        ({"task.options.lenght": "16"}, ["'lenght'", "'length'"]),
        ({"task.options.num_kv_pairs": "5"}, ["num_kv_pairs", "5", "16"]),
        ({"train.batch_size": "0"}, ["train.batch_size", "0", "at least 1"]),
        ({"train.epochs": "2"}, ["train.steps", "train.epochs"]),
        ({"optimizer.learning_rate": "0"}, ["learning_rate", "above 0"]),
        ({"optimizer.schedule": "cosin"}, ["schedule", "'cosin'", "'cosine'"]),
        ({"model.mixer": "no_such_package.file:Mixer"}, ["no_such_package"]),
        ({"model.mixer": "[5]"}, ["model.mixer is [5]", "[base_conv,attention]"]),
        ({"model.mixer": "[]"}, ["model.mixer is []", "[base_conv,attention]"]),
        ({"model.mixer": "[gla,atention]"}, ["'atention'", "'attention'"]),
        ({"model.mixer": "[gla,orchid]"}, ["'orchid' is not causal", "'mqar' needs", "attention"]),
        ({"model.mixer": "bidirectional"}, ["'bidirectional' is not causal", "'mqar' needs"]),
        ({"model.d_model": "0"}, ["model.d_model is 0", "an integer of at least 1"]),
        ({"model.d_model": "none"}, ["model.d_model is None", "an integer of at least 1"]),
        ({"model.embedding_dropout": "1"}, ["model.embedding_dropout is 1.0", "below 1"]),
        ({"optimizer.learning_rate": "none"}, ["optimizer.learning_rate is None", "above 0"]),
        ({"optimizer.learning_rate": "1e999"}, ["optimizer.learning_rate is inf", "finite"]),
        ({"optimizer.learning_rate": "1" + 400 * "0"}, ["optimizer.learning_rate", "finite"]),
        ({"optimizer.ssm_learning_rate": "1e39"}, ["optimizer.ssm_learning_rate", "finite"]),
        ({"optimizer.weight_decay": "-1"}, ["optimizer.weight_decay is -1.0", "at least 0"]),
        ({"optimizer.clip_norm": "abc"}, ["optimizer.clip_norm", "'abc'"]),
        ({"optimizer.b1": "1"}, ["optimizer.b1 is 1.0", "below 1"]),
        ({"optimizer.b2": "-0.1"}, ["optimizer.b2 is -0.1", "at least 0"]),
        ({"optimizer.epsilon": "0"}, ["optimizer.epsilon is 0.0", "above 0"]),
        ({"train.stop_at": "abc"}, ["train.stop_at is 'abc'", "a finite number, or none"]),
        ({"train.stop_at": "true"}, ["train.stop_at is True", "a finite number, or none"]),
        ({"train.steps": "none", "train.epochs": "abc"}, ["train.epochs is 'abc'", "above 0"]),
        ({"train.steps": "2147483648"}, ["train.steps is 2147483648", "below 2**31"]),
        ({"train.steps": "none", "train.epochs": "1e9"}, ["train.epochs is 1000000000.0", "2**31"]),
        ({"train.eval_every": "0"}, ["train.eval_every is 0", "at least 1", "none: after every"]),
        ({"evaluation.batch_size": "0"}, ["evaluation.batch_size is 0", "at least 1"]),
        ({"study": ""}, ["study is ''", "the study's name"]),
        ({"seed": "none"}, ["seed is None", "at least 0 and below 2**32"]),
        ({"seed": "-1"}, ["seed is -1", "at least 0 and below 2**32"]),
        ({"seed": "4294967296"}, ["seed is 4294967296", "below 2**32"]),
        ({"optimizer": {"learning_rate": 1e-3}}, ["'optimizer.ssm_learning_rate' is missing"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_way_out(changes, words):
    with pytest.raises(ConfigError) as error:
        c.Study(TINY, changes).trials()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


ENDLESS = {"task.options.num_train_examples": None}


@pytest.mark.parametrize(
    ("preset", "changes", "words"),
    [
        (
            "",
            ENDLESS | {"train.steps": None, "train.epochs": 2},
            ["train.epochs is 2", "endless", "num_train_examples"],
        ),
        (
            "",
            ENDLESS | {"optimizer.schedule": "cosine_per_epoch"},
            ["optimizer.schedule is 'cosine_per_epoch'", "endless", "num_train_examples"],
        ),
        (
            "",
            ENDLESS | {"train.eval_every": None},
            ["train.eval_every is None", "endless", "num_train_examples"],
        ),
        (
            ":mixture",
            {"task.options.train": [[16, 2, 40], [24, 3, None]]},
            ["length=24", "endless", "length=16"],
        ),
    ],
)
def test_epochs_need_a_set_of_finite_size(preset, changes, words):
    changes = changes | {"task.options.vocab_size": 4096}  # contexts enough for endless training
    with pytest.raises(ConfigError) as error:
        c.Study(TINY + preset, changes).base_trial()
    for word in words:
        assert word in str(error.value)


def test_steps_and_cosine_train_on_an_endless_set():
    c.Study(TINY, ENDLESS | {"task.options.vocab_size": 4096}).base_trial()
    mixture = {"task.options.train": [[16, 2, None], [24, 3, None]]}
    c.Study(f"{TINY}:mixture", mixture | {"task.options.vocab_size": 4096}).base_trial()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("mqra.py", ["mqra.py", "'mqar.py'"]),
        (f"{TINY}:mixtrue", ["mixtrue", "mixture"]),
    ],
)
def test_a_wrong_file_or_preset_is_named(spec, words):
    with pytest.raises(ConfigError) as error:
        c.Study(spec)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_module", ["ModuleNotFoundError", "no_such_module"]),
        ("def get_config(:", ["SyntaxError", "line 1"]),
        ("get_config = dict", ["sweep()"]),
        ("get_config = lambda: {}[0]\nsweep = list", ["get_config()", "KeyError: 0"]),
        ("get_config = lambda: 1 / 0\nsweep = list", ["ZeroDivisionError: division by zero"]),
        ("get_config = dict\nsweep = list", ["returns a dict", "ConfigDict"]),
        ("del tiny['study']", ["'study' is missing", "the study's name"]),
        ("del tiny['seed']", ["'seed' is missing", "an integer"]),
        ("del tiny['train']", ["section 'train' is missing", "batch_size, steps"]),
        ("tiny['train'] = None", ["section 'train' is missing"]),
        ("tiny['evaluation'] = 5", ["section 'evaluation' is 5"]),
        ("del tiny['train']['steps']", ["'train.steps' is missing", "at least 1"]),
        ("tiny['model']['dropuot'] = 0.3", ["'model.dropuot'", "'model.dropout'"]),
        (
            "tiny['optimizer']['warmup_fracton'] = 0",
            ["warmup_fracton", "'optimizer.warmup_fraction'"],
        ),
        (
            "tiny['train']['stop_above'] = tiny['train'].pop('stop_at')",
            ["'train.stop_above' is called 'train.stop_at' now"],
        ),
        ("tiny['model']['d_model'] = {1}", ["model.d_model is of type set"]),
        ("tiny['model']['d_model'] = 16.0", ["model.d_model is 16.0", "an integer"]),
        ("tiny['study'] = 5", ["study is 5", "name"]),
        ("def sweep(config):\n    yield {}\n    1 / 0", ["sweep()", "ZeroDivisionError"]),
        ("sweep = lambda config: None", ["sweep()", "TypeError", "NoneType"]),
        ("sweep = lambda config: ['seed']", ["sweep()", "'seed'", "{'seed': 1}"]),
    ],
)
def test_a_broken_study_file_is_named(tmp_path, text, words):
    broken = tmp_path / "broken.py"
    if "tiny" in text or text.startswith(("sweep", "def sweep")):
        text = (
            "import runpy\n"
            f"module = runpy.run_path({TINY!r})\n"
            "tiny = module['get_config']().to_dict()\n"
            "get_config, sweep = lambda: type(module['get_config']())(tiny), module['sweep']\n"
            + text
        )
    broken.write_text(text + "\n")
    with pytest.raises(ConfigError) as error:
        c.Study(str(broken)).trials()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_study_without_presets_is_named(tmp_path):
    plain = tmp_path / "plain.py"
    plain.write_text("def get_config(): ...\nsweep = list\n")
    with pytest.raises(ConfigError, match=r"plain\.py:big: get_config\(\) raises TypeError"):
        c.Study(f"{plain}:big")


class TestAPackedTask:
    @pytest.fixture(autouse=True)
    def packed(self, monkeypatch):
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "training"))

    def trial(self, **model):
        task = {"task": {"name": "packed_stream:PackedStream", "options": {}}}
        changes = {f"model.{key}": value for key, value in model.items()}
        return c.Study(TINY, task | changes | {"optimizer.learning_rate": 0.01}).base_trial()

    def test_takes_mixers_that_keep_documents_apart(self):
        assert self.trial(mixer="[base_conv,mamba]")["task"]["name"].endswith("PackedStream")

    @pytest.mark.parametrize(
        ("model", "named"),
        [
            ({"mixer": "hyena"}, "'hyena'"),
            ({"mixer": "[gla,s4d]"}, "'s4d'"),
            ({"mixer": "base_conv", "mixer_options": {"width": None}}, "'base_conv'"),
        ],
    )
    def test_names_those_that_cannot_and_the_way_out(self, model, named):
        with pytest.raises(ConfigError) as error:
            self.trial(**model)
        message = str(error.value)
        assert message.startswith(f"with these options {named} cannot keep packed documents apart")
        assert "one document per row" in message
        assert "arch/README.md" in message
