"""The machine's name, memory, copy bandwidth and rate of matrix products: the roofline."""

import dataclasses
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from runners.benchmark import timing

_LARGEST = 0.6  # of the memory: the rest holds arguments and results


@dataclasses.dataclass(frozen=True)
class Limits:
    """The machine's peak rates, as measured.

    Attributes:
      copy: bytes read and written in a second.
      matmul: dtype -> floating-point operations in a second.
    """

    copy: float
    matmul: Mapping[str, float]

    @classmethod
    def measure(cls, dtypes: Sequence[str]) -> "Limits":
        """Measures this machine."""
        rates = {dtype: _matmul_rate(jnp.dtype(dtype)) for dtype in dtypes}
        return cls(_copy_bandwidth(), rates)

    def __str__(self) -> str:
        rates = (f"{rate / 1e12:.3g} TFLOP/s in {dtype}" for dtype, rate in self.matmul.items())
        return f"copies {self.copy / 1e9:.3g} GB/s, multiplies matrices at {' and '.join(rates)}"


def name() -> str:
    """The device in words, such as "NVIDIA H100 80GB HBM3" or "Intel Xeon, 2 cores"."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    return f"{_processor()}, {len(os.sched_getaffinity(0))} cores"


def slug() -> str:
    """The device as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name().lower()).strip("-")


def _memory_bytes() -> int:
    """Memory of the first device, or of the host where that is the device."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def lacks(size: int) -> bool:
    """True if `size` bytes are more than a program should take here."""
    return size > _LARGEST * _memory_bytes()


def _copy_bandwidth() -> float:
    """Bytes read and written in a second by a copy of 256 MiB of float32."""
    x = jnp.zeros(2**26, jnp.float32)
    copy = jax.jit(jnp.negative)  # a program that returns its argument would copy nothing
    return 2 * x.nbytes / _seconds(lambda: copy(x))


def _matmul_rate(dtype: jnp.dtype) -> float:
    """Floating-point operations in a second of a square product, 8,192 wide on accelerators.

    In float32 with full precision, as the operators have it.
    """
    width = 2048 if jax.devices()[0].platform == "cpu" else 8192
    x = jnp.ones((width, width), dtype)
    product = jax.jit(lambda x: jnp.matmul(x, x, precision=_precision(dtype)))
    return 2 * width**3 / _seconds(lambda: product(x))


def _precision(dtype: jnp.dtype) -> jax.lax.Precision:
    narrow = jnp.dtype(dtype) == jnp.bfloat16
    return jax.lax.Precision.DEFAULT if narrow else jax.lax.Precision.HIGHEST


def _seconds(call: Callable[[], jax.Array]) -> float:
    return timing.median(timing.alternate({"": call}, rounds=9)[""])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        found = next(line.partition(":")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        found = platform.processor() or platform.machine()
    words = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", found).split()
    return " ".join(words)
