"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from runners.core import allocator
if sys.argv[1] == "kept":
    allocator.keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
    ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    block = libc.malloc(100 << 20)
    ctypes.memset(block, 1, 100 << 20)
    libc.free(block)
use()
before = faults()
for _ in range(3):
    use()
print(faults() - before)
"""


def _faults(how):
    return int(subprocess.check_output([sys.executable, "-c", PROGRAM, how], text=True))


def test_a_large_block_is_mapped_once():
    pages = 3 * (100 << 20) // 4096
    if _faults("given_back") < pages // 100:
        pytest.skip("huge pages, or a C library that keeps memory by itself")
    assert _faults("kept") < pages // 100
