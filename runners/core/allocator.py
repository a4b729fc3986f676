"""Settings of malloc under which freed memory is reused by the next step.

On CPUs, XLA allocates the temporary memory of a program anew at each call. By default glibc maps
every block of more than 32 MiB for that one use and caps a thread's arena at 64 MiB, so that every
step page-faults on fresh zeroed pages. Measured on 2 cores, forward and backward of one S5 layer of
width 256 on 4,096 and 8,192 tokens: 77 and 177 ms by default, 63 and 136 ms with these settings.
"""

import ctypes
import sys

# Of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1


def keep_memory() -> None:
    """Makes this process keep the memory that it frees; no effect without glibc."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
