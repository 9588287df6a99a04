"""Threads that do the tasks of a visit.

Those of `concurrent.futures` keep the interpreter from ending as long as one of them waits. These
don't, and the thread that waits for them may give up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

AT_ONCE = 4
"""Number of tasks that are done at the same time."""

_GLANCE = 0.2
"""Seconds between two questions if waiting is still worthwhile."""


def together(
    tasks: Iterable[Callable[[], object]],
    at_once: int = AT_ONCE,
    *,
    is_stuck: Callable[[], bool] = lambda: False,
) -> bool:
    """Do tasks, a few at a time, and return True when all have ended.

    Return False as soon as `is_stuck` returns True: then the tasks are left to themselves, and
    those that have not begun are dropped. If tasks raise, the first exception is raised at the end.
    """
    waiting = deque(tasks)
    errors: list[BaseException] = []

    def work() -> None:
        while True:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                task()
            except BaseException as error:  # it is raised again by the thread that waits
                errors.append(error)

    threads = [
        threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(waiting)))
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_GLANCE)
                if is_stuck():
                    return False
    finally:
        waiting.clear()  # after an interruption, no further task begins
    if errors:
        raise errors[0]
    return True
