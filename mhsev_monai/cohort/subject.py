"""One simulated subject: clinical variables, truth, and the stored images, from a seed, a site and a number."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.cohort.anatomy import Anatomy, draw_head_shape, head_anatomy
from mhsev_monai.cohort.clinical import Clinical, draw_clinical, draw_count, severity_at
from mhsev_monai.cohort.disease import DIFFICULTIES, Bleed, draw_bleeds, paint_bleeds
from mhsev_monai.cohort.hospitals import Hospital
from mhsev_monai.cohort.mimics import Mimics, draw_mimics, paint_mimics
from mhsev_monai.cohort.signal import (
    TISSUE_TABLE,
    Contrast,
    coil_shading,
    rician,
    stored_integers,
    tissue_signal,
    volume_signal,
)

# Each aspect has its own stream, so that one can be changed and the others stay.
_STREAMS = ("clinical", "count", "anatomy", "mimics", "bleeds", "shading", "noise")


class Record(NamedTuple):
    """What is known of a subject without its scan: the row of the table of participants."""

    clinical: Clinical
    n_microbleeds: int


class SimulatedSubject(NamedTuple):
    """A subject in RAS order.

    Attributes:
        record: clinical variables and number of microbleeds.
        images: ``(X, Y, Z, N)`` stored integers, one volume a b-value of the hospital.
        labels: ``(X, Y, Z)``, 0 or the number of the bleed.
        bleeds: in the order of their labels.
        mimics: what does not count.
        anatomy: tissues.
    """

    record: Record
    images: NDArray[np.int16]
    labels: NDArray[np.uint8]
    bleeds: tuple[Bleed, ...]
    mimics: Mimics
    anatomy: Anatomy


def random_streams(seed: int, site: str, index: int) -> dict[str, np.random.Generator]:
    """Independent generators for the aspects of one subject; they depend on nothing else.

    Args:
        seed: of the cohort.
        site: name of the hospital.
        index: number of the subject within it, from 1.
    """
    root = np.random.SeedSequence([seed, zlib.crc32(site.encode()), index])
    return {name: np.random.default_rng(child) for name, child in zip(_STREAMS, root.spawn(len(_STREAMS)), strict=True)}


def draw_record(hospital: Hospital, seed: int, index: int) -> Record:
    """The clinical variables and the count of a subject, without its images."""
    streams = random_streams(seed, hospital.name, index)
    clinical = draw_clinical(streams["clinical"])
    severity = severity_at(clinical.risk_percentile, hospital.severity_mix)
    return Record(clinical, draw_count(streams["count"], severity))


def simulate_subject(
    hospital: Hospital, seed: int, index: int, *, difficulty: str = "easy", count: int | None = None
) -> SimulatedSubject:
    """A subject and its scan.

    Args:
        hospital: whose protocol and patients.
        seed: of the cohort.
        index: number of the subject within the hospital, from 1.
        difficulty: a name of ``disease.DIFFICULTIES``.
        count: number of microbleeds instead of the subject's own; everything else stays as it is.
    """
    streams = random_streams(seed, hospital.name, index)
    record = draw_record(hospital, seed, index)
    if count is not None:
        record = record._replace(n_microbleeds=count)
    grid, hardness = hospital.grid, DIFFICULTIES[difficulty]
    anatomy = head_anatomy(draw_head_shape(streams["anatomy"], record.clinical.age, grid), grid)
    mimics = draw_mimics(streams["mimics"], record.clinical, anatomy, grid, hardness)
    bleeds = draw_bleeds(streams["bleeds"], record.n_microbleeds, anatomy, grid, hardness, mimics.bodies)
    kept, fluid = paint_mimics(mimics, grid)
    left, labels = paint_bleeds(bleeds, grid)
    fractions = anatomy.fractions * (1 - fluid)
    fractions[0] += fluid
    factor = kept * left * coil_shading(streams["shading"], grid, hospital.shading)
    images = _scan(hospital, fractions, factor, streams["noise"])
    return SimulatedSubject(record, images, labels, tuple(bleeds), mimics, anatomy)


def _scan(
    hospital: Hospital, fractions: NDArray[np.float32], factor: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.int16]:
    """The stored volumes, ``(X, Y, Z, N)``."""
    contrasts = [Contrast(hospital.te_ms, hospital.tr_ms, b) for b in hospital.b_values]
    reference = tissue_signal(TISSUE_TABLE["white"], contrasts[0]._replace(b=0.0))
    head = fractions.sum(axis=0) > 0.02 if hospital.masked_background else None
    images = np.empty((*hospital.shape, len(contrasts)), dtype=np.int16)
    for volume, contrast in enumerate(contrasts):
        measured = rician(volume_signal(fractions, contrast) * factor, reference / hospital.snr, rng)
        images[..., volume] = stored_integers(measured if head is None else measured * head, hospital.gain)
    return images
