"""The choice of an implementation, and the errors of wrong requests."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import pallas_kernels
from pallas_kernels import Window, dispatch

X = jnp.ones((2, 3, 4, 8))


def _operator(monkeypatch, **backends):
    monkeypatch.setattr(dispatch, "_OPERATORS", {})
    return dispatch.Operator("square", backends)


def test_chosen_takes_shapes_and_dtypes():
    x = jax.ShapeDtypeStruct(X.shape, X.dtype)
    assert pallas_kernels.chosen("gated_linear_attention", x, x, x) == "xla"
    chosen = pallas_kernels.chosen("attention", x, x, x, implementation="reference")
    assert chosen == "reference"


def test_the_fastest_that_can_run_is_chosen(monkeypatch):
    def obstacle(x):
        return "x must be positive" if x <= 0 else None

    fast = dispatch.Backend(lambda x: "fast", obstacle)
    slow = dispatch.Backend(lambda x: "slow")
    square = _operator(monkeypatch, fast=fast, slow=slow)
    assert square.run(None, 1) == "fast"
    assert square.run(None, -1) == "slow"
    assert pallas_kernels.chosen("square", -1) == "slow"
    with pytest.raises(ValueError, match=r"'fast': x must be positive; choose one of fast, slow"):
        square.run("fast", -1)


def test_used_names_what_is_traced_inside():
    x = jax.ShapeDtypeStruct(X.shape, X.dtype)
    with dispatch.used() as names:
        for _ in range(2):
            jax.eval_shape(pallas_kernels.attention, x, x, x)
            jax.eval_shape(pallas_kernels.gated_linear_attention, x, x, x)
    jax.eval_shape(pallas_kernels.linear_scan, X[0], X[0])
    assert names == ["attention", "gated_linear_attention"]


def test_unknown_names():
    with pytest.raises(ValueError, match=r"no implementation 'cuda': choose one of xla, reference"):
        pallas_kernels.attention(X, X, X, implementation="cuda")
    with pytest.raises(ValueError, match=r"'atention': did you mean attention\?"):
        pallas_kernels.chosen("atention", X, X, X)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pallas_kernels.attention(X, X, X[0]), r"v has shape \[3, 4, 8\], expected"),
        (lambda: pallas_kernels.attention(X, X[:, :, :3], X[:, :, :3]), "4 heads cannot share 3"),
        (lambda: pallas_kernels.attention(X, X, X, mask="causal"), "'causal' is no rule"),
        (
            lambda: pallas_kernels.attention(X, X, X, q_segment_ids=jnp.ones((2, 3), int)),
            "give both",
        ),
        (lambda: Window(0), "size must be >= 1"),
        (
            lambda: pallas_kernels.long_convolution(X[0], X[0, 0]),
            r"kernel has shape \[4, 8\], expected \[D, L\] with D=8",
        ),
        (
            lambda: pallas_kernels.gated_linear_attention(X, X, X, X[:, :2]),
            r"log_decay has shape \[2, 2, 4, 8\], expected \[B, T, H, K\] with B=2, T=3, H=4, K=8",
        ),
    ],
)
def test_wrong_shapes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_circular_convolution_needs_a_full_kernel():
    with pytest.raises(
        ValueError, match="length T=3 needs a kernel with at least as many taps, not L=2"
    ):
        pallas_kernels.long_convolution(jnp.ones((2, 3, 4)), jnp.ones((4, 2)), causal=False)


def test_an_unproven_backend_runs_only_when_it_is_named(monkeypatch):
    fast = dispatch.Backend(lambda x: "fast", on_request=True)
    square = _operator(monkeypatch, fast=fast, slow=dispatch.Backend(lambda x: "slow"))
    assert square.run(None, 1) == "slow"
    assert square.run("fast", 1) == "fast"


def test_available_says_what_stands_in_the_way(monkeypatch):
    backend = dispatch.Backend(lambda x: "here", platform="tpu")
    _operator(monkeypatch, here=backend, everywhere=dispatch.Backend(lambda x: "everywhere"))
    with dispatch.target("cpu"):
        found = dispatch.available("square", 1)
    assert found == {"here": "it needs a tpu, and this is a cpu", "everywhere": None}
    with dispatch.target("tpu"):
        assert dispatch.available("square", 1)["here"] is None


def test_target():
    here = dispatch.current_target()
    assert here == dispatch.Target(jax.default_backend(), interpret=False)
    with dispatch.target("tpu", interpret=True):
        assert dispatch.current_target() == dispatch.Target("tpu", interpret=True)
        with dispatch.target("gpu"):
            assert dispatch.current_target() == dispatch.Target("gpu", interpret=False)
    assert dispatch.current_target() == here
    with jax.default_device(jax.devices("cpu")[0]):
        assert dispatch.current_target().platform == "cpu"
    with pytest.raises(ValueError, match="unknown platform 'cuda': choose cpu, gpu or tpu"):
        dispatch.target("cuda").__enter__()


def test_a_module_is_imported_when_its_function_is_called():
    call = dispatch.imported("pallas_kernels.no_such_module", "run")
    with pytest.raises(ModuleNotFoundError):
        call()
    assert dispatch.imported("math", "hypot")(3, 4) == 5


@pytest.mark.parametrize(
    ("dtypes", "precision"),
    [
        (("bfloat16", "bfloat16"), jax.lax.Precision.DEFAULT),
        (("bfloat16", "float32"), jax.lax.Precision.HIGHEST),
    ],
)
def test_only_bfloat16_inputs_may_be_multiplied_roughly(dtypes, precision):
    arrays = [jnp.ones(2, dtype) for dtype in dtypes]
    assert dispatch.matmul_precision(*arrays, None) == precision


def test_pallas_is_imported_only_when_a_kernel_is_asked_for():
    """Importing it takes a second that a CPU user has no use for."""
    program = "import sys, pallas_kernels; sys.exit('jax.experimental.pallas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_obstacles_take_arguments_by_name_or_place(monkeypatch):
    def obstacle(x, y, *, scale):
        return f"{x} {y} {scale}"

    _operator(monkeypatch, odd=dispatch.Backend(lambda *args: None, obstacle))
    assert dispatch.available("square", 1)["odd"] == "1 None None"
    assert dispatch.available("square", y=2, x=1, scale=3)["odd"] == "1 2 3"
