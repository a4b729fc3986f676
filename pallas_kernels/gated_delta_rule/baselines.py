"""The gated delta rule has no short form in plain JAX besides the recurrence, its "reference".

`lax.associative_scan` would need its transitions as matrices [B, T, H, K, K], and products of them.
"""

from collections.abc import Mapping

from pallas_kernels.baseline import Baseline

BASELINES: Mapping[str, Baseline] = {}
