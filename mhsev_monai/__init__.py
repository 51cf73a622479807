"""One hospital's side of mhsev, from a scan to a grade, without a server."""

from mhsev_monai._version import __version__

__all__ = ["__version__"]
