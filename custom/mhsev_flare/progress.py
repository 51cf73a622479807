"""Progress of long work on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, at most a line every 10 s where that is a file; yields a function of (done, total)."""
    interactive = sys.stderr.isatty()
    with tqdm(desc=title, unit=unit, mininterval=0.2 if interactive else 10.0, file=sys.stderr) as progress:

        def update(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        yield update
