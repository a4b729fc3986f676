"""One suite of tests that every operator inherits, run for every implementation it has.

The truth is the reference implementation under x64; its values are checked against a loop in
float64 numpy, written apart from the package. A Pallas kernel runs in the interpreter here, unless
its platform is at hand, and is lowered for its platform at every named shape.

Tolerances are on the root mean square of the error over that of the truth. float32 rounds by
ε = 6e-8; the longest chain is a few times T = 1000 dependent operations, whose rounding adds up to
ε √(4 T) ≈ 4e-6, and an FFT adds ε log T: 1e-5 leaves a factor of 2.5. bfloat16 inputs are exact in
the truth too, so that only the rounding of the result is left, 2^-9 = 2e-3: a factor of five.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels
from pallas_kernels import dispatch
from pallas_kernels.example import examples

TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
LENGTHS = (1, 2, 63, 64, 65, 1000)  # around the borders of chunks and blocks, and many of them


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs of an operator at any length.

    Attributes:
      make: (random generator, length) -> float64 arrays or None, in the order of the operator's
        arguments; the arrays are differentiated.
      options: length -> keyword arguments of the operator.
      only: the implementations that take such inputs; None is all.
    """

    make: Callable[[np.random.Generator, int], list[np.ndarray | None]]
    options: Callable[[int], dict[str, Any]] = lambda length: {}
    only: tuple[str, ...] | None = None


def cast(arrays, dtype):
    """To `dtype`, complex numbers to the complex type of that width; None stays None."""

    def one(a):
        if a is None:
            return None
        if np.iscomplexobj(a):
            return jnp.asarray(a, {"float64": "complex128"}.get(dtype, "complex64"))
        return jnp.asarray(a, dtype)

    return [one(a) for a in arrays]


def outputs_and_gradients(call, arrays):
    """The outputs, and the gradients of a random weighting of them in every array that is there."""

    @jax.jit
    def run(arrays):
        outputs, transpose = jax.vjp(lambda arrays: call(*arrays), arrays)
        rng = np.random.default_rng(1)
        weights = tuple(jnp.asarray(rng.normal(size=o.shape), o.dtype) for o in outputs)
        return outputs, transpose(weights)[0]

    outputs, gradients = run(arrays)
    return [*outputs, *(g for g in gradients if g is not None)]


def assert_close(values, truths, tolerance):
    """Every value is finite, of its truth's shape, and within a relative RMS of `tolerance`.

    A truth of zero (the softmax over a single key has no gradient) is a sum that cancels: what is
    left rounds terms of the size of the inputs, which is one.
    """
    for i, (value, truth) in enumerate(zip(values, truths, strict=True)):
        value, truth = np.asarray(value), np.asarray(truth)
        if value.dtype == jnp.bfloat16:
            value = value.astype(np.float64)
        assert value.shape == truth.shape
        assert np.all(np.isfinite(value)), f"result {i} is not finite"
        error, size = (np.sqrt(np.mean(np.abs(x) ** 2)) for x in (value - truth, truth))
        assert error <= tolerance * (size or 1), f"result {i}: {error} against {size}"


def tracing_for(operator, implementation):
    """The context in which an implementation of an operator runs here."""
    platform = dispatch.backends(operator)[implementation].platform
    if platform in (None, jax.default_backend()):
        return contextlib.nullcontext()
    return dispatch.target(platform, interpret=True)


class OperatorSuite:
    """Inherit it as `TestLinearScan`, name the operator, its cases and its loop.

    Attributes:
      operator: name of the public function.
      implementations: all it has, "reference" first.
      cases: by name; the first is the main case, run at every length.
      loop: the same function in float64 numpy, written apart: a tuple of outputs.
      drift_case: the case that is run at T = 16,384; None is the main case.
      interpreted_lengths: of the Pallas kernels, whose interpreter is slow.
    """

    operator: ClassVar[str]
    implementations: ClassVar[tuple[str, ...]]
    cases: ClassVar[Mapping[str, Case]]
    loop: ClassVar[Callable[..., tuple[np.ndarray, ...]]]
    drift_case: ClassVar[str | None] = None
    interpreted_lengths: ClassVar[tuple[int, ...]] = LENGTHS

    def pytest_generate_tests(self, metafunc):
        """Parametrizes by what the subclass declares."""
        names = metafunc.fixturenames
        if "lowered" in names:
            grid = [
                pytest.param((i, e, dtype), id=f"{i}-{e.name}-{dtype}")
                for i in self.kernels
                for e in examples(self.operator)
                for dtype in e.dtypes
            ]
            metafunc.parametrize("lowered", grid)
        if "case" in names:
            metafunc.parametrize("case", self.cases)
        if "implementation" in names:
            metafunc.parametrize("implementation", self.implementations)
        if "length" in names:
            metafunc.parametrize("length", LENGTHS)

    @property
    def main(self):
        return next(iter(self.cases))

    @property
    def kernels(self):
        """The implementations that are kernels, with their platforms."""
        backends = dispatch.backends(self.operator)
        return {i: backends[i].platform for i in self.implementations if backends[i].is_kernel}

    def inputs(self, case, length, dtype):
        """float64 arrays whose values `dtype` can represent: the truth sees the same inputs."""
        arrays = self.cases[case].make(np.random.default_rng(length), length)
        rounded = cast(arrays, dtype)
        wide = {True: np.complex128, False: np.float64}
        return [
            None if a is None else np.asarray(a).astype(wide[np.iscomplexobj(a)]) for a in rounded
        ]

    def call(self, case, implementation, length):
        """The operator as a function of its arrays alone, with a tuple as result."""
        operator, options = getattr(pallas_kernels, self.operator), self.cases[case].options(length)

        def call(*arrays):
            result = operator(*arrays, **options, implementation=implementation)
            return result if isinstance(result, tuple) else (result,)

        return call

    @functools.cache  # noqa: B019  (one instance per class and process)
    def _truth(cls, case, length, dtype):  # noqa: N805
        self = cls()
        with jax.enable_x64(True):
            arrays = cast(self.inputs(case, length, dtype), "float64")
            results = outputs_and_gradients(self.call(case, "reference", length), arrays)
            return [np.asarray(r) for r in results]

    def truth(self, case, length, dtype="float32"):
        """Outputs and gradients of the reference in float64."""
        return OperatorSuite._truth(type(self), case, length, dtype)

    def runnable(self, case, implementation):
        """Skips where an implementation does not take such inputs."""
        only = self.cases[case].only
        if only is not None and implementation not in only:
            pytest.skip(f"{implementation} does not take these inputs")

    def check(self, case, implementation, length, dtype="float32"):
        """Values and gradients against the truth."""
        self.runnable(case, implementation)
        arrays = cast(self.inputs(case, length, dtype), dtype)
        with tracing_for(self.operator, implementation):
            results = outputs_and_gradients(self.call(case, implementation, length), arrays)
        if not np.iscomplexobj(results[0]):
            assert results[0].dtype == dtype
        assert_close(results, self.truth(case, length, dtype), TOLERANCE[dtype])

    def test_truth_equals_loop(self, case):
        length = 65
        outputs = type(self).loop(
            *self.inputs(case, length, "float32"), **self.cases[case].options(length)
        )
        # Two float64 computations of at most 65 dependent steps.
        assert_close(self.truth(case, length)[: len(outputs)], outputs, 1e-12)

    def test_lengths(self, implementation, length):
        if implementation in self.kernels and length not in self.interpreted_lengths:
            pytest.skip("the interpreter is slow: run with the slow tests")
        self.check(self.main, implementation, length)

    def test_options(self, case, implementation):
        self.check(case, implementation, 65)

    @pytest.mark.slow
    def test_options_at_every_length(self, case, implementation, length):
        self.check(case, implementation, length)

    def test_bfloat16(self, implementation):
        self.check(self.main, implementation, 65, "bfloat16")

    def test_vmap_equals_loop(self, implementation):
        self.runnable(self.main, implementation)
        arrays = cast(self.inputs(self.main, 65, "float32"), "float32")
        call = self.call(self.main, implementation, 65)
        with tracing_for(self.operator, implementation):
            single = [outputs_and_gradients(call, [s * a for a in arrays]) for s in (1.0, 0.5)]
            mapped = jax.jit(jax.vmap(lambda arrays: outputs_and_gradients(call, arrays)))
            stacked = mapped([jnp.stack([a, 0.5 * a]) for a in arrays])
        for i in range(2):
            # The same arithmetic, in another order.
            assert_close([r[i] for r in stacked], [np.asarray(r) for r in single[i]], 2e-6)

    def test_no_drift(self):
        """At T = 16,384 rounding adds up as √T, or stays where the state forgets."""
        self.check(self.drift_case or self.main, "xla", 16_384)

    def test_kernels_say_what_they_cannot_run(self):
        arrays = cast(self.inputs(self.main, 5, "float32"), "float32")
        options = self.cases[self.main].options(5)
        wide = [None if a is None else jax.ShapeDtypeStruct(a.shape, np.float64) for a in arrays]
        for name, platform in self.kernels.items():
            other = {"tpu": "gpu", "gpu": "tpu"}[platform]
            with dispatch.target(other):
                found = dispatch.available(self.operator, *arrays, **options)
                assert found[name] == f"it needs a {platform}, and this is a {other}"
            with dispatch.target(platform):
                assert dispatch.available(self.operator, *arrays, **options)[name] is None
                found = dispatch.available(self.operator, *arrays[:-1], wide[-1], **options)
                assert found[name] == "it computes in float32, and an input is float64"

    def test_kernel_lowers(self, lowered):
        """Forward and backward, for the kernel's platform, on any machine."""
        implementation, example, dtype = lowered
        arrays = jax.eval_shape(lambda: example.arrays(jax.random.key(0), dtype))
        operator = getattr(pallas_kernels, self.operator)

        def loss(arrays):
            y, state = operator(**arrays, **example.options, implementation=implementation)
            return sum(
                jnp.sum(jnp.abs(r.astype(jnp.float32))) for r in (jnp.abs(y), jnp.abs(state))
            )

        text = lower(jax.value_and_grad(loss), self.kernels[implementation], arrays)
        assert "custom_call" in text


def lower(function, platform, *args):
    """The program for another platform than the one at hand, as text."""
    with dispatch.target(platform):
        if platform == "tpu":
            return jax.export.export(jax.jit(function), platforms=["tpu"])(*args).mlir_module()
        with cuda_mesh():
            return jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",)).as_text()


def cuda_mesh():
    """From jax 0.12 on, lowering for CUDA without a GPU needs to be told which GPU it is for."""
    if jax.__version_info__ < (0, 12):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", None, "gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)
