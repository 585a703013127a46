"""numba with types that mypy accepts."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(*, parallel: bool = False, reassociate: bool = False) -> Callable[[Function], Function]:
    """Return numba's `njit` with an on-disk cache and the GIL released; the decorated function keeps its type.

    numba checks only the file of the function itself for changes, so a kernel and the compiled helpers
    it calls stay in one file: otherwise an edit of a helper would leave a stale kernel in the cache.

    Args:
        parallel: Whether `prange` loops run on several threads.
        reassociate: Whether sums may be added in another order than written, to use the CPU's vectors: the
            same bits on one machine, not on every machine. Everything else of `fastmath` stays off.
    """
    fastmath = {"reassoc", "nsz"} if reassociate else False
    return cast(
        "Callable[[Function], Function]", numba.njit(cache=True, nogil=True, parallel=parallel, fastmath=fastmath)
    )


def threads() -> int:
    """Return the number of threads that kernels may use now (`NUMBA_NUM_THREADS`, `numba.set_num_threads`)."""
    return int(numba.get_num_threads())
