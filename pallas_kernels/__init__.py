"""The sequence operators: one folder per operator, one file per backend.

Every operator takes `implementation`. None is the fastest that a measurement has shown for the
platform, and that supports the shapes and dtypes; `chosen` says which one that is. By name:

  "reference"   the equation, one step at a time
  "xla"         the fast form for every platform
  "pallas_tpu"  our kernel for TPUs   } the four recurrences; on request only,
  "pallas_gpu"  our kernel for GPUs   } until a measurement has shown that it wins
  "jla"         jax-linear-attention's kernels for Hopper GPUs (the extra `hopper`)
  "splash", "cudnn"   of `attention`, what JAX ships for TPUs and GPUs

A name that cannot run raises ValueError and says why. Inputs are bfloat16 or float32, arithmetic
and states float32, outputs in the dtype of the first input. Any length T >= 1 will do.
"""

from pallas_kernels import xla_cpu_workaround
from pallas_kernels.attention import (
    BlockLocal,
    Causal,
    Column,
    Fixed,
    Full,
    PrefixWindow,
    Strided,
    Summary,
    Window,
    attention,
)
from pallas_kernels.dispatch import chosen, used
from pallas_kernels.gated_delta_rule import gated_delta_rule
from pallas_kernels.gated_linear_attention import gated_linear_attention
from pallas_kernels.linear_scan import linear_scan
from pallas_kernels.long_convolution import long_convolution
from pallas_kernels.selective_scan import selective_scan

xla_cpu_workaround.disable_ynnpack()

__all__ = [
    "BlockLocal",
    "Causal",
    "Column",
    "Fixed",
    "Full",
    "PrefixWindow",
    "Strided",
    "Summary",
    "Window",
    "attention",
    "chosen",
    "gated_delta_rule",
    "gated_linear_attention",
    "linear_scan",
    "long_convolution",
    "selective_scan",
    "used",
]
