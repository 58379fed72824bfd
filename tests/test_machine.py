"""Memory of freed arrays is kept for the next ones."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from geothresh.machine import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def arrays():
    every = [np.empty(2**20, np.uint8) for _ in range(64)]
    for one in every:
        one[:] = 1

for _ in range(3):
    arrays()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    arrays()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_memory_of_freed_arrays_does_not_come_page_by_page_again() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", FAULTS, how]))
        for how in ("kept", "returned")
    }
    # 64 MB are 16,384 pages of 4 kB; fewer where the system has larger ones.
    assert faults["kept"] < 64 and faults["kept"] < faults["returned"] / 4, faults
