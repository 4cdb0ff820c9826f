"""Memory that a program on a CPU gets once, and not anew in each step.

XLA takes the memory of a step from the C library at its start and gives it back at its end. glibc
hands pieces as large as these to the kernel and back, and the kernel clears every page of 4 KB
when it is first touched: a third of the time of a MobileNet's step. Here it keeps them, and asks
for pages of 2 MB.
"""

import ctypes
import os
import sys

# Of malloc.h and of sys/mman.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_HUGE_PAGE = 2 * 2**20
_MADV_HUGEPAGE = 14


def keep_memory(fraction: float = 0.5) -> bool:
    """Lets glibc keep what is given back to it, in large pages; returns whether it does.

    Elsewhere than on Linux with glibc nothing happens. To be called before there are threads.

    Args:
      fraction: of the machine's memory whose addresses are set aside for large pages. None of it
        is taken before it is used.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
        if not library.mallopt(option, value):
            return False
    library.malloc.restype = ctypes.c_void_p
    size = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * fraction)
    address = library.malloc(ctypes.c_size_t(size))
    if address:
        first = -(-address // _HUGE_PAGE) * _HUGE_PAGE
        length = ctypes.c_size_t(address + size - first)
        library.madvise(ctypes.c_void_p(first), length, _MADV_HUGEPAGE)
        library.free(ctypes.c_void_p(address))
    return True
