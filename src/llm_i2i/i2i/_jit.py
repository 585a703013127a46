"""numba with types that mypy accepts."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core.event import Event, Listener, register

log = logging.getLogger(__name__)
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


class _Word(Listener):  # type: ignore[misc]
    """Says, once per process, that kernels are compiled: the first call of a model would else be silent for a while.

    numba tells of a compilation only where its cache on disk, which survives the process, has no kernel yet.
    """

    said = False

    def on_start(self, event: Event) -> None:
        kernel = getattr(event.data.get("dispatcher"), "py_func", None)
        if not self.said and getattr(kernel, "__module__", "").startswith("llm_i2i."):
            self.said = True
            log.warning("compiling kernels: once per machine and version, it takes up to a minute")

    def on_end(self, event: Event) -> None:
        pass


register("numba:compile", _Word())
