"""The simulated hospitals: what their scanners do and whom they scan.

Voxels, b-values, echo and repetition times, background masking and ghosts follow headers and images of real scanners
of five vendors. Bandwidths are those of a readout of 25 to 75 ms. Severity mixes are graver than a population's, so
that every class occurs at every site. Shares of subjects are the paper's 200, 180 and 120 of 500.
"""

from __future__ import annotations

from mhsev_monai.cohort.hospital import FIELD_TESLA, Hospital

__all__ = ["FIELD_TESLA", "HOSPITALS", "MORE_HOSPITALS", "Hospital"]

HOSPITALS: tuple[Hospital, ...] = (
    # As on a Siemens scanner without a mask, with parallel imaging.
    Hospital(
        name="site-1",
        n_reference=200,
        shape=(112, 112, 48),
        spacing=(1.8, 1.8, 3.0),
        acquired=(112, 112),
        orientation="LAS",
        oblique_degrees=(8.0, 0.0, 0.0),
        b_values=(0.0, 1000.0, 1000.0, 1000.0),
        te_ms=66.0,
        tr_ms=8000.0,
        phase_bandwidth_hz=26.0,
        ghost=0.008,
        snr=20.0,
        shading=0.25,
        gain=1200.0,
        masked_background=False,
        severity_mix=(0.45, 0.33, 0.22),
        lognormal_severe_share=0.04,
    ),
    # As on a Philips scanner: interpolated, background set to zero.
    Hospital(
        name="site-2",
        n_reference=180,
        shape=(104, 104, 46),
        spacing=(2.0, 2.0, 3.2),
        acquired=(96, 94),
        orientation="RAS",
        oblique_degrees=(14.0, 0.0, 2.0),
        b_values=(0.0, 1000.0, 1000.0, 1000.0),
        te_ms=74.0,
        tr_ms=5000.0,
        phase_bandwidth_hz=32.0,
        ghost=0.004,
        snr=18.0,
        shading=0.45,
        gain=3500.0,
        masked_background=True,
        severity_mix=(0.30, 0.35, 0.35),
        lognormal_severe_share=0.14,
    ),
    # As on a United Imaging scanner: a little weighting on "b = 0", thicker slices.
    Hospital(
        name="site-3",
        n_reference=120,
        shape=(108, 108, 36),
        spacing=(1.9, 1.9, 4.0),
        acquired=(100, 96),
        orientation="LPS",
        oblique_degrees=(3.0, 2.0, 0.0),
        b_values=(1.25, 930.0, 930.0, 930.0),
        te_ms=78.0,
        tr_ms=6000.0,
        phase_bandwidth_hz=20.0,
        ghost=0.018,
        snr=15.0,
        shading=0.35,
        gain=600.0,
        masked_background=False,
        severity_mix=(0.18, 0.31, 0.51),
        lognormal_severe_share=0.33,
    ),
)
"""Who takes part in the federation."""

MORE_HOSPITALS: tuple[Hospital, ...] = (
    # Isotropic voxels and a higher b-value.
    Hospital(
        name="site-4",
        n_reference=100,
        shape=(72, 72, 48),
        spacing=(3.0, 3.0, 3.0),
        acquired=(72, 72),
        orientation="LAS",
        oblique_degrees=(18.0, 0.0, 1.0),
        b_values=(0.0, *(1500.0,) * 6),
        te_ms=76.0,
        tr_ms=5500.0,
        phase_bandwidth_hz=27.0,
        ghost=0.006,
        snr=24.0,
        shading=0.30,
        gain=900.0,
        masked_background=False,
        severity_mix=(0.35, 0.35, 0.30),
        lognormal_severe_share=0.13,
    ),
    # A stroke protocol: thick slices, strongly interpolated.
    Hospital(
        name="site-5",
        n_reference=100,
        shape=(160, 160, 29),
        spacing=(1.3, 1.3, 5.0),
        acquired=(112, 104),
        orientation="LPS",
        oblique_degrees=(12.0, 0.0, 0.0),
        b_values=(0.0, 1000.0, 1000.0, 1000.0),
        te_ms=84.0,
        tr_ms=5200.0,
        phase_bandwidth_hz=14.0,
        ghost=0.012,
        snr=12.5,
        shading=0.30,
        gain=2000.0,
        masked_background=True,
        severity_mix=(0.35, 0.35, 0.30),
        lognormal_severe_share=0.13,
    ),
    # As on a GE scanner without parallel imaging: long readout, a visible ghost.
    Hospital(
        name="site-6",
        n_reference=100,
        shape=(128, 128, 48),
        spacing=(1.7, 1.7, 3.0),
        acquired=(112, 112),
        orientation="RAS",
        oblique_degrees=(0.0, 0.0, 0.0),
        b_values=(0.0, 1000.0, 1000.0, 1000.0),
        te_ms=80.0,
        tr_ms=7400.0,
        phase_bandwidth_hz=13.5,
        ghost=0.025,
        snr=17.0,
        shading=0.40,
        gain=5000.0,
        masked_background=False,
        severity_mix=(0.35, 0.35, 0.30),
        lognormal_severe_share=0.13,
    ),
)
"""Sites outside the federation, for trials of a model on protocols that it has not seen."""
