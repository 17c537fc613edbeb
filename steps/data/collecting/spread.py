"""Work on parts: one after another in this process, or as tasks of the Ray cluster that it leads.

Parts and results pass through Ray's object store; temporary files are the first host's, and no other sees them.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import starmap
from typing import Any, Final

MOST_AT_ONCE: Final = 8
"""Parts that lie in the memory of the first host: as many as it writes while others are reckoned."""


def spread(work: Callable[..., Any], parts: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield what the work returns of each part's arguments, in the order of the parts; few are under way at once."""
    # Where nobody has imported it, which takes seconds, no cluster is up.
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        yield from starmap(work, parts)
        return
    task, waiting = ray.remote(work), deque[Any]()
    for part in parts:
        waiting.append(task.remote(*part))
        if len(waiting) >= MOST_AT_ONCE:
            yield ray.get(waiting.popleft())
    yield from map(ray.get, waiting)
