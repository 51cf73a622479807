"""Runs a program under limits: ``python -m ...gateway.limited MEMORY_BYTES FILE_BYTES PARENT -- PROGRAM ...``.

Takes the program's place (exec), so that its process id and exit status are the program's. 0 is no limit. The program
is killed when ``PARENT``, the gateway, ends: a gateway that starts again must not meet a child of the one before.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> None:
    """Set the limits and become the program."""
    memory, file, parent, _, *program = arguments
    _limit(resource.RLIMIT_AS, int(memory))
    _limit(resource.RLIMIT_FSIZE, int(file))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        # The gateway ended before the line above.
        sys.exit(1)
    os.execvp(program[0], program)


def _limit(what: int, most: int) -> None:
    if most:
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main(sys.argv[1:])
