import subprocess
import sys

from tests.programs import ROOT, environment

# Takes and gives back what a step would, then counts the pages that the kernel had to clear.
CODE = """
import ctypes, resource, sys
from zoo.training.memory import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory(0.1)
malloc, free, memset = (getattr(ctypes.CDLL(None), n) for n in ("malloc", "free", "memset"))
malloc.restype = ctypes.c_void_p
size = 200 * 2**20
for i in range(6):
    if i == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    address = malloc(ctypes.c_size_t(size))
    memset(ctypes.c_void_p(address), 1, ctypes.c_size_t(size))
    free(ctypes.c_void_p(address))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def cleared(what: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CODE, what],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_memory_that_is_given_back_is_kept():
    assert cleared("let go") > 100_000  # 5 x 200 MB in pages of 4 KB are 256,000
    assert cleared("keep") < 1000
