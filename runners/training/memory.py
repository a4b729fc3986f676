"""Memory of the training device."""

import contextlib
import os
from pathlib import Path

import jax

_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def device_bytes() -> int:
    """Memory of a device; of this machine, or of its container, where the device shares it."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_container_limits()])


def _container_limits() -> list[int]:
    """Bytes that the control group of this container may use, as version 2 and 1 have them."""
    limits = []
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
            limits.append(int(path.read_text()))
    return limits
