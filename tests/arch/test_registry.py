"""Building architectures by name: every mistake is one line that names the way out."""

import jax
import numpy as np
import pytest
from flax import nnx

import arch


class Twice(arch.SequenceMixer):
    """y = 2 x, an architecture that lives outside the package."""

    def __init__(self, d_model, *, rngs, factor=2.0):
        self.factor = factor

    def __call__(self, x, context=None):
        return self.factor * x


@pytest.fixture
def rngs():
    return nnx.Rngs(0)


def test_the_core_is_registered():
    assert {"attention", "base_conv", "gla", "hyena", "mamba", "s4d"} <= set(arch.names())
    assert arch.names() == sorted(arch.names())


def test_every_mixer_names_its_paper():
    for name in arch.names():
        assert "arxiv" in arch.get(name).reference.lower(), name


def test_import_path(rngs, monkeypatch, tmp_path):
    (tmp_path / "my_mixers.py").write_text(
        "import arch\n"
        "class Half(arch.SequenceMixer):\n"
        "    def __init__(self, d_model, *, rngs): pass\n"
        "    def __call__(self, x, context=None): return x / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mixer = arch.build("my_mixers:Half", 4, rngs=rngs)
    assert mixer(jax.numpy.ones((1, 1, 4))).sum() == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [("raise RuntimeError('no\\nluck')", "RuntimeError: no luck"), ("def", "SyntaxError: ")],
)
def test_a_module_that_cannot_be_imported(monkeypatch, tmp_path, text, reason):
    (tmp_path / "broken_mixers.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"broken_mixers:Half' cannot be imported: {reason}"):
        arch.get("broken_mixers:Half")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mambo", {}, "'mambo': did you mean 'mamba'"),
        ("xyz", {}, "unknown architecture 'xyz': known: attention, "),
        ("no_such_module:Mixer", {}, "cannot be imported"),
        ("arch.mamba:Mambo", {}, "cannot be imported"),
        ("arch.nn.layers:Linear", {}, "not a subclass of arch.SequenceMixer"),
        ("gla", {"num_head": 2}, "no option 'num_head': did you mean 'num_heads'"),
        ("gla", {"zzz": 2}, "no option 'zzz': it takes: num_heads, "),
        ("titans_mag", {"memory_dept": 2}, "no option 'memory_dept': did you mean 'memory_depth'"),
        ("titans_mac", {"chunk_size": 4}, "no option 'chunk_size': did you mean 'conv_size'"),
        ("block_local", {"window": 4}, "no option 'window': it takes: block, num_heads, "),
        ("attention", {"num_heads": 5}, "num_heads is 5, expected a divisor of d_model 32"),
        (
            "attention",
            {"num_heads": "abc"},
            "num_heads is 'abc', expected an integer of at least 1",
        ),
        ("attention", {"num_heads": True}, "num_heads is True, expected an integer of at least 1"),
        ("mamba", {"d_state": 1.5}, "d_state is 1.5, expected an integer of at least 1"),
        ("attention", {"num_heads": 4, "num_kv_heads": 3}, "num_kv_heads is 3, .* such as 2"),
        ("attention", {"num_heads": 32}, "head width .* is 1, expected an even number"),
        ("attention", {"positions": "learned"}, "positions is 'learned', expected one of 'rotary'"),
        ("attention", {"window": 0}, "window is 0, expected at least 1"),
        ("s4d", {"d_state": 7}, "d_state is 7, expected an even number, such as 8"),
        ("s4d", {"d_state": 0}, "d_state is 0, expected at least 2"),
        ("s4d", {"init": "line"}, "init is 'line', expected one of 'lin'"),
        ("s4d", {"discretization": "euler"}, "discretization is 'euler', expected one of 'zoh'"),
        ("mamba", {"d_state": 0}, "d_state is 0, expected at least 1"),
        ("gla", {"num_heads": 3}, "num_heads is 3, expected a divisor of .* 16, such as 2"),
        ("gla", {"temperature": 0}, "temperature is 0, expected a positive number"),
        ("gla", {"conv_size": 0}, "conv_size is 0, expected at least 1"),
        ("hyena", {"order": 0}, "order is 0, expected at least 1"),
        ("base_conv", {"width": 0}, "width is 0, expected at least 1"),
        ("sliding_window", {"window": None}, "window is None, expected an integer of at least 1"),
        ("block_local", {"block": 0}, "block is 0, expected at least 1"),
        ("sparse_strided", {"stride": 0}, "stride is 0, expected at least 1"),
        ("sparse_strided", {"heads": "both"}, "heads is 'both', expected one of 'merged', 'split'"),
        ("sparse_strided", {"heads": "split"}, "num_heads, .* is 1, expected an even number"),
        ("sparse_fixed", {"stride": 4, "summary": 5}, "summary is 5, expected at most the stride"),
    ],
)
def test_mistakes_are_one_line(rngs, name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        arch.build(name, 32, rngs=rngs, **options)
    assert "\n" not in str(error.value)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match=r"'gla' is already registered by arch\.gla"):
        arch.register("gla")(Twice)
    assert arch.register("gla")(arch.get("gla")) is arch.get("gla")


def test_max_length_reaches_those_who_need_it(rngs):
    assert arch.build("hyena", 8, rngs=rngs, max_length=12).max_length == 12
    assert arch.build("hyena", 8, rngs=rngs, max_length=12, filter_width=8).max_length == 12
    arch.build("mamba", 8, rngs=rngs, max_length=12)  # needs none


def test_num_layers_reaches_those_who_need_it(rngs):
    kernels = [
        arch.build("sparse_fixed", 8, rngs=nnx.Rngs(0), num_layers=layers).out.kernel[...]
        for layers in (2, 8)
    ]
    np.testing.assert_allclose(kernels[0], 2 * kernels[1], rtol=1e-6)
    arch.build("mamba", 8, rngs=rngs, num_layers=2)  # needs none


def test_a_mixer_without_its_methods_says_which(rngs):
    mixer = Twice(4, rngs=rngs)
    with pytest.raises(TypeError, match="Twice must define extend"):
        mixer.extend(None, None)
    with pytest.raises(TypeError, match="Twice must define initial_state"):
        mixer.initial_state(1, 1)
