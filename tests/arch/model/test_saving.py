"""A saved model is the same to the bit, and what is wrong with its files is said in one line."""

import json
import re
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import arch
from arch.model.backbone import Backbone

MIXER = '''"""A mixer of one's own."""

import arch
from arch.nn.layers import Linear


class Own(arch.SequenceMixer):
    def __init__(self, d_model, *, rngs, scale=1.0):
        self.out, self.scale = Linear(d_model, d_model, rngs=rngs), scale

    def __call__(self, x, context=None):
        return self.scale * self.out(x)
'''
TOKENS = jax.random.randint(jax.random.key(0), (2, 16), 0, 11)
FORWARD = jax.jit(lambda model, tokens: model(tokens))
MODELS = {
    "gla": {"mixer": "gla"},
    "attention": {
        "mixer": "attention",
        "mixer_options": {"num_heads": 2},
        "position_embedding": True,
        "channel_mixer": "swiglu",
        "norm": "rms",
    },
    "mom": {"mixer": "mom"},  # with a loss of its own
    "hyena": {"mixer": "hyena"},
    "pattern": {"mixer": ["base_conv", "gla"], "mixer_options": {"gla": {"num_heads": 2}}},
    "held": {"mixer": "bidirectional", "head": "class", "num_classes": 3},
    "bfloat16": {"mixer": "lstm", "compute_dtype": "bfloat16"},
}


def arguments(name="gla"):
    return {"d_model": 16, "num_layers": 2, "vocab_size": 11, "max_length": 16} | MODELS[name]


def build(name="gla"):
    return Backbone(**arguments(name), rngs=nnx.Rngs(3))


@pytest.fixture
def saved(tmp_path):
    arch.save(tmp_path / "model", build(), arguments(), {"trial": "abc"})
    return tmp_path / "model"


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_says_the_same_to_the_bit(name, tmp_path):
    model = build(name)
    expected = FORWARD(model, TOKENS)
    if name == "mom":
        model(TOKENS, context=arch.Context(training=True))
        assert jax.tree.leaves(nnx.state(model, arch.AuxiliaryLoss))  # must not be saved
    arch.save(tmp_path / "model", model, arguments(name))
    loaded = arch.load(tmp_path / "model")
    np.testing.assert_array_equal(FORWARD(loaded, TOKENS), expected)
    assert jax.tree.structure(loaded) == jax.tree.structure(build(name))  # types of variables, too


def test_names_can_be_read_and_the_files_hold_all(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert not [path for path in saved.parent.iterdir() if path != saved]
    arrays = load_file(saved / "model.safetensors")
    assert "embedding" in arrays
    assert "final_norm.scale" in arrays
    assert arrays["runs.0.0.mixer.query.kernel"].shape[0] == 2  # of two layers
    config = json.loads((saved / "config.json").read_text())
    assert config["backbone"] == arguments()
    assert config["mixer_versions"] == {"gla": arch.get("gla").version}
    assert config["about"] == {"trial": "abc"}


def test_versions_of_held_mixers_are_kept(tmp_path):
    arch.save(tmp_path / "model", build("held"), arguments("held"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert set(config["mixer_versions"]) == {"bidirectional", "gla"}


def test_a_mixer_from_outside_is_imported(tmp_path, monkeypatch):
    (tmp_path / "own_saved_mixer.py").write_text(MIXER)
    own = arguments() | {"mixer": "own_saved_mixer:Own", "mixer_options": {"scale": 2.0}}
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        model = Backbone(**own, rngs=nnx.Rngs(3))
        arch.save(tmp_path / "model", model, own)
        loaded = arch.load(tmp_path / "model")
        np.testing.assert_array_equal(FORWARD(loaded, TOKENS), FORWARD(model, TOKENS))
    del sys.modules["own_saved_mixer"]
    with pytest.raises(ValueError, match="'own_saved_mixer:Own' cannot be imported"):
        arch.load(tmp_path / "model")


def edit(saved, change):
    arrays = load_file(saved / "model.safetensors")
    change(arrays)
    save_file(arrays, saved / "model.safetensors")


def one_line(path):
    with pytest.raises(ValueError, match=re.escape(str(path))) as raised:
        arch.load(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


QUERY = "runs.0.0.mixer.query.kernel"


class TestDamage:
    def test_an_array_is_missing(self, saved):
        edit(saved, lambda arrays: arrays.pop(QUERY))
        assert f"missing: {QUERY}" in one_line(saved)

    def test_an_array_has_another_name(self, saved):
        edit(saved, lambda arrays: arrays.update(other=arrays.pop(QUERY)))
        assert f"missing: {QUERY}; unknown: other" in one_line(saved)

    def test_an_array_has_another_shape(self, saved):
        edit(saved, lambda arrays: arrays.update(embedding=arrays["embedding"][:-1]))
        message = one_line(saved)
        assert "embedding is float32 [10, 16], expected float32 [11, 16]" in message

    def test_an_array_has_another_dtype(self, saved):
        edit(saved, lambda a: a.update(embedding=a["embedding"].astype(np.float16)))
        assert "embedding is float16 [11, 16], expected float32" in one_line(saved)

    @pytest.mark.parametrize("size", [0, 4, 100, -1])
    def test_the_arrays_are_cut_off(self, saved, size):
        path = saved / "model.safetensors"
        path.write_bytes(path.read_bytes()[:size])
        assert "damaged" in one_line(saved)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_a_file_is_missing(self, saved, name):
        (saved / name).unlink()
        assert f"no file {str(saved / name)!r}" in one_line(saved)

    def test_there_is_no_folder(self, tmp_path):
        assert "python -m runners.export" in one_line(tmp_path / "nothing")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"version": 2}, "has version 2 of the format, expected 1"),
            ({"format": "other"}, "is no model of Seqbench"),
            ({"backbone": None}, "has no 'backbone'"),
            ({"mixer_versions": {"gla": 99}}, "holds version 99 of the architecture 'gla'"),
            ({"backbone": arguments() | {"mixer": "glaa"}}, "did you mean 'gla'"),
            ({"backbone": arguments() | {"depth": 3}}, "unexpected keyword argument 'depth'"),
            ({"backbone": arguments() | {"d_model": 8}}, "expected float32 [11, 8]"),
            ({"backbone": {}}, "missing"),
        ],
    )
    def test_the_configuration_is_another(self, saved, change, message):
        path = saved / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        assert message in one_line(saved)

    def test_the_configuration_is_no_json(self, saved):
        (saved / "config.json").write_text('{"format": ')
        one_line(saved)


def test_nothing_is_overwritten(saved):
    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="exists: choose another folder"):
        arch.save(saved, build("attention"), arguments("attention"))
    assert (saved / "model.safetensors").read_bytes() == before


def test_arguments_of_another_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not those of the model"):
        arch.save(tmp_path / "model", build(), arguments() | {"d_model": 8})
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        arch.save(tmp_path / "model", build(), arguments())
    assert not list(tmp_path.iterdir())
