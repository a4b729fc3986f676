"""Division of a population over devices."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def trial_sharding(num_trials: int) -> NamedSharding:
    """Splits the trial axis over as many local devices as divide it."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if num_trials % n == 0)
    mesh = jax.make_mesh((count,), ("trial",), (AxisType.Auto,), devices=devices[:count])
    return NamedSharding(mesh, PartitionSpec("trial"))
