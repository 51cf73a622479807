"""Simulated hospitals: heads, microbleeds and diffusion scans from a seed, for the demo, benchmarks and tests."""

from __future__ import annotations

from mhsev_monai.cohort.hospitals import HOSPITALS, Hospital
from mhsev_monai.cohort.make import CohortSummary, SiteSummary, make_cohort
from mhsev_monai.cohort.subject import SimulatedSubject, simulate_subject

__all__ = [
    "HOSPITALS",
    "CohortSummary",
    "Hospital",
    "SimulatedSubject",
    "SiteSummary",
    "make_cohort",
    "simulate_subject",
]
