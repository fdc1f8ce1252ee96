"""Requests in parallel: a function is called for several items, in threads."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 8


def map_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], check: Callable[[], None]
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with its result, in order.

    Args:
        check: Called before every few items; it may raise to end the work.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(items), THREADS):
            check()
            part = items[start : start + THREADS]
            yield from zip(part, pool.map(function, part), strict=True)
