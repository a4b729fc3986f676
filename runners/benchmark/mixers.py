"""Time and memory of one layer: training beside attention, growth with length, decoding."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import arch
from runners.benchmark import machine, timing
from runners.core import complexity

BASELINE = "attention"
# The exponent of time against length that each growth of the operations may have between 1,024 and
# 8,192 tokens: log T and caches take their part. Attention's has no bar.
BARS: Mapping[str, float] = {"T": 1.15, "T log T": 1.25, "T √T": 1.6}

# Seconds for the samples of one candidate: all architectures in less than half an hour.
_PAIR, _GROWTH, _DECODING = 7.0, 2.0, 1.0
_ROOM = 256  # tokens that are decoded before the state is again the one after the prompt


@dataclasses.dataclass(frozen=True)
class Setting:
    """The sizes at which architectures are compared.

    Attributes:
      batch: B of the comparison with attention; growth and decoding have one sequence.
      length: T, likewise.
      d_model: D.
      dtype: of the activations.
      lengths: T at which growth is measured.
      prompts: after how many tokens one token is decoded.
    """

    batch: int = 2
    length: int = 4096
    d_model: int = 256
    dtype: str = "float32"
    lengths: tuple[int, ...] = (1024, 2048, 4096, 8192)
    prompts: tuple[int, ...] = (1024, 8192)


@dataclasses.dataclass(frozen=True)
class MixerTiming:
    """Measurement of one architecture with its default options.

    Attributes:
      mixer: its name.
      batch: as in `Setting`.
      length: likewise.
      d_model: likewise.
      dtype: likewise.
      operators: those that it calls.
      growth: how its operations grow with the length, counted.
      causal: the future is hidden; otherwise it cannot decode.
      failure: why it was not measured; what follows may then be missing.
      parameters: their number.
      seconds: of forward and backward (x and every parameter).
      ratio: that over attention's time, the median over rounds in which the two took turns.
      compile_seconds: of forward and backward.
      temporary_bytes: memory besides arguments and results, as the compiler counts it.
      growth_seconds: [(T, forward and backward on one sequence)].
      exponent: p in the least-squares fit of seconds ∝ T^p.
      token_seconds: [(prompt, one decoded token)].
      state_bytes: [(prompt, state of one sequence)].
    """

    mixer: str
    batch: int
    length: int
    d_model: int
    dtype: str
    operators: Sequence[str] = ()
    growth: str | None = None
    causal: bool | None = None
    failure: str | None = None
    parameters: int | None = None
    seconds: float | None = None
    ratio: float | None = None
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    growth_seconds: Sequence[tuple[int, float]] = ()
    exponent: float | None = None
    token_seconds: Sequence[tuple[int, float]] = ()
    state_bytes: Sequence[tuple[int, int]] = ()


class Bench:
    """Measures architectures, each in turns with one and the same attention layer."""

    def __init__(self, setting: Setting, rounds: int):
        self.setting, self.rounds = setting, rounds

    def measure(self, name: str) -> MixerTiming:
        """The row of an architecture; whatever goes wrong with it is its `failure`."""
        at = self.setting
        row = MixerTiming(name, at.batch, at.length, at.d_model, at.dtype)
        try:
            entry = complexity.summary(name)
            row = dataclasses.replace(
                row, operators=entry.operators, growth=entry.training, causal=entry.causal
            )
            row = dataclasses.replace(row, **self._training(name))
            row = dataclasses.replace(row, **self._growth(name))
            if entry.causal:
                row = dataclasses.replace(row, **self._decoding(name))
        except Exception as error:  # a compiler may raise anything, and must not end the table
            row = dataclasses.replace(row, failure=timing.first_line(error))
        return row

    def _training(self, name: str) -> dict[str, Any]:
        if name == BASELINE:
            step = self._baseline
        else:
            step = _TrainingStep(name, self.setting, self.setting.batch, self.setting.length)
        calls = {BASELINE: self._baseline, name: step}
        samples = timing.alternate(calls, self.rounds, _PAIR)
        return {
            "parameters": step.parameters,
            "seconds": timing.median(samples[name]),
            "ratio": timing.ratio(samples[name], samples[BASELINE]),
            "compile_seconds": step.program.compile_seconds,
            "temporary_bytes": step.program.temporary_bytes,
        }

    @functools.cached_property
    def _baseline(self) -> "_TrainingStep":
        return _TrainingStep(BASELINE, self.setting, self.setting.batch, self.setting.length)

    def _growth(self, name: str) -> dict[str, Any]:
        steps = {n: _TrainingStep(name, self.setting, 1, n) for n in self.setting.lengths}
        samples = timing.alternate(steps, self.rounds, _GROWTH)
        points = [(n, timing.median(times)) for n, times in samples.items()]
        exponent = timing.slope(*zip(*points, strict=True)) if len(points) > 1 else None
        return {"growth_seconds": points, "exponent": exponent}

    def _decoding(self, name: str) -> dict[str, Any]:
        decoders = {n: _Decoder(name, self.setting, n) for n in self.setting.prompts}
        samples = timing.alternate(decoders, self.rounds, _DECODING)
        return {
            "token_seconds": [(n, timing.median(times)) for n, times in samples.items()],
            "state_bytes": [
                (n, arch.state_bytes(_build(name, self.setting, n), n)) for n in decoders
            ],
        }


class _TrainingStep:
    """Forward and backward: the output and its gradients by x and every parameter."""

    def __init__(self, name: str, setting: Setting, batch: int, length: int):
        mixer = _build(name, setting, length)
        x, tokens = _inputs(setting, batch, length)

        def step(mixer: Any, x: jax.Array, tokens: jax.Array) -> Any:
            context = arch.Context(tokens=tokens, training=True)
            y, transpose = jax.vjp(lambda mixer, x: mixer(x, context), mixer, x)
            return y, transpose(x)  # x has the shape of y, and stands for the gradient by it

        self.parameters = sum(v.size for v in jax.tree.leaves(nnx.state(mixer, nnx.Param)))
        self.program = timing.compiled(step, mixer, x, tokens)
        _refuse_large(self.program.temporary_bytes)
        self._run = functools.partial(self.program.run, mixer, x, tokens)

    def __call__(self) -> Any:
        return self._run()


class _Decoder:
    """One token after a prompt; the state is donated, so that a cache is written in place."""

    def __init__(self, name: str, setting: Setting, prompt: int):
        capacity = prompt + _ROOM
        self._mixer = _build(name, setting, capacity)

        def read(mixer: Any, x: jax.Array, tokens: jax.Array) -> Any:
            return _extend(mixer, mixer.initial_state(1, capacity), x, tokens)[0]

        self._prompted = jax.jit(read)(self._mixer, *_inputs(setting, 1, prompt))
        self._token = _inputs(setting, 1, 1)
        self._extend: Callable[..., Any] = jax.jit(_extend, donate_argnums=1)
        self._left = 0

    def __call__(self) -> jax.Array:
        if not self._left:
            self._state = jax.tree.map(jnp.copy, self._prompted)
            self._left = _ROOM
        self._left -= 1
        self._state, y = self._extend(self._mixer, self._state, *self._token)
        return y


def _extend(mixer: Any, state: Any, x: jax.Array, tokens: jax.Array) -> Any:
    return mixer.extend(state, x, arch.Context(tokens=tokens))


def _build(name: str, setting: Setting, length: int) -> Any:
    return arch.build(name, setting.d_model, rngs=nnx.Rngs(0), max_length=length, num_layers=1)


def _inputs(setting: Setting, batch: int, length: int) -> tuple[jax.Array, jax.Array]:
    """x [B, T, D] and the tokens behind it, [B, T]."""
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (batch, length, setting.d_model), setting.dtype)
    return x, jax.random.randint(keys[1], (batch, length), 0, 256)


def _refuse_large(size: int) -> None:
    if machine.lacks(size):
        raise MemoryError(f"forward and backward need {size / 2**30:.1f} GiB")
