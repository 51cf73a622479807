"""Errors that a user can mend. Their text never holds a path, a name, a date or an intensity."""

from __future__ import annotations


class ScanError(ValueError):
    """A scan that cannot be used: the message says what came, what is accepted, and what to do.

    The message names no file. Whoever knows the file puts its name in front: the command line the path that was typed,
    a federated site the case id.
    """


class CohortError(ValueError):
    """A data root that cannot be used: no scans, no table of participants, a column that is missing."""
