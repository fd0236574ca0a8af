"""How kernels are started; and how all that a computation needs are compiled side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

_only_compiling: ContextVar[bool] = ContextVar("only_compiling", default=False)


def enqueue(kernel: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    """`kernel[grid]`; inside `only_compiling` what compiles it for its arguments instead."""
    return partial(kernel.warmup, grid=grid) if _only_compiling.get() else kernel[grid]


@contextmanager
def only_compiling() -> Iterator[None]:
    """Kernels launched inside are compiled, one in each thread, and not run.

    Leaving waits for them. What the launching code reads back is whatever memory held.
    """
    from triton import AsyncCompileMode

    token = _only_compiling.set(True)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool, AsyncCompileMode(pool):
            yield
    finally:
        _only_compiling.reset(token)
