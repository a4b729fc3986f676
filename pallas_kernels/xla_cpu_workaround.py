"""Keeps XLA's CPU backend from computing wrong values.

From jax 0.10 to 0.12 that backend hands matrix products and reductions to YNNPACK, which for some
shapes (products of many small blocks, as in gated linear attention) returns wrong values, others
for every compilation of the same program, or dies of a segmentation fault. Without it all is well,
and a training step is no slower. `tests/pallas_kernels/test_xla_cpu_workaround.py` watches over it.
"""

import os

import jax

_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def disable_ynnpack() -> None:
    """Adds the flag to XLA_FLAGS; it acts if no array has been made in this process so far.

    Nothing happens where the user has set the flag, or with a newer jax, which must be looked at
    anew (and for which an unknown flag would be fatal).
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags and jax.__version_info__ < (0, 13):
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}=".strip()
