"""FLARE's POC mode: a server, hospitals and an administrator as real processes on one machine, in one folder."""

from mhsev_flare.poc.federation import PocError, PocFederation
from mhsev_flare.poc.processes import wait_until

__all__ = ["PocError", "PocFederation", "wait_until"]
