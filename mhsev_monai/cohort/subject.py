"""One simulated subject: clinical variables, truth, and the stored images, from a seed, a site and a number."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mhsev_monai.cohort.acquisition import Sampling, acquired_image, point_spread
from mhsev_monai.cohort.air_susceptibility import air_field, epi_distorted, through_slice_factor
from mhsev_monai.cohort.anatomy import Anatomy, HeadShape, draw_head_shape, head_anatomy
from mhsev_monai.cohort.clinical import Clinical, draw_clinical
from mhsev_monai.cohort.counts import subject_count
from mhsev_monai.cohort.disease import DIFFICULTIES, Bleed, Imaging, draw_bleeds, label_bleeds
from mhsev_monai.cohort.hospitals import FIELD_TESLA, Hospital
from mhsev_monai.cohort.mimics import MimicEffects, Mimics, draw_mimics, paint_mimics
from mhsev_monai.cohort.motion import draw_poses, moved
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.signal import (
    TISSUE_TABLE,
    Contrast,
    WhiteMatterTensor,
    coil_shading,
    draw_tensor,
    stored_integers,
    tissue_signal,
    volume_signal,
)
from mhsev_monai.cohort.susceptibility import (
    EpiReadout,
    MagneticSphere,
    gradient_echo_factor,
    spin_echo_epi_factor,
)

# Each aspect has its own stream, so that one can be changed and the others stay.
_STREAMS = ("clinical", "count", "anatomy", "mimics", "bleeds", "protocol", "shading", "motion", "noise", "reader")
# Distance between the samples of a voxel of the coarse variant, mm.
_SAMPLE_SPACING = {"full": 1.0, "small": 1.7}
# Of a spin echo in an echo-planar readout; see ``air_susceptibility.through_slice_factor``.
_SPIN_ECHO_DEPHASING_MS = 8.0
_HEAD_SHARE = 0.02
# How much more is left above the brain than below it, mm.
_ROOM_ABOVE = 4.0
# Outermost places of the brain, MNI mm: vertex, parietal lobes, poles of the lobes, cerebellum, medulla.
_BRAIN_OUTLINE = (
    (0.0, -20.0, 80.0),
    *((side * 25.0, -35.0, 79.0) for side in (-1.0, 1.0)),
    (0.0, 68.0, -12.0),
    (0.0, -103.0, -5.0),
    *((side * 44.0, 12.0, -44.0) for side in (-1.0, 1.0)),
    *((side * 42.0, -65.0, -60.0) for side in (-1.0, 1.0)),
    *((side * 16.0, -50.0, -67.0) for side in (-1.0, 1.0)),
)

_DEFAULTS = CohortSettings()

Streams = dict[str, np.random.Generator]


class Record(NamedTuple):
    """What is known of a subject without its scan: the row of the table of participants."""

    clinical: Clinical
    n_microbleeds: int


class SimulatedSubject(NamedTuple):
    """A subject; arrays run right, anterior and superior along the slices' own axes.

    Attributes:
        record: clinical variables and number of microbleeds.
        images: ``(X, Y, Z, N)`` stored integers, one volume a b-value of the protocol.
        labels: ``(X, Y, Z)``, 0 or the number of the bleed, of those that count.
        bleeds: all; those that count are in the order of their labels. In mm along the slices' axes.
        mimics: what does not count.
        anatomy: tissues.
        affine: ``(4, 4)``, from voxel indices of these arrays to world mm.
        b_values: s/mm^2, one a volume.
        te_ms: echo time as scanned.
        tr_ms: repetition time as scanned.
    """

    record: Record
    images: NDArray[np.int16]
    labels: NDArray[np.uint8]
    bleeds: tuple[Bleed, ...]
    mimics: Mimics
    anatomy: Anatomy
    affine: NDArray[np.float64]
    b_values: tuple[float, ...]
    te_ms: float
    tr_ms: float


class Head(NamedTuple):
    """What is put into the scanner.

    Attributes:
        fractions: ``(8, X, Y, Z)`` of ``signal.SCANNED_TISSUES``.
        kept: ``(X, Y, Z)``, factor on the signal by mimics.
        tensor: anisotropy of white matter.
        anatomy: tissues without disease.
        magnets: bleeds, and calcifications without the loss that ``kept`` holds.
    """

    fractions: NDArray[np.float32]
    kept: NDArray[np.float32]
    tensor: WhiteMatterTensor
    anatomy: Anatomy
    magnets: Sequence[MagneticSphere]


def random_streams(seed: int, site: str, index: int) -> Streams:
    """Independent generators for the aspects of one subject; they depend on nothing else.

    Args:
        seed: of the cohort.
        site: name of the hospital.
        index: number of the subject within it, from 1.
    """
    root = np.random.SeedSequence([seed, zlib.crc32(site.encode()), index])
    return {name: np.random.default_rng(child) for name, child in zip(_STREAMS, root.spawn(len(_STREAMS)), strict=True)}


def draw_record(hospital: Hospital, seed: int, index: int, settings: CohortSettings = _DEFAULTS) -> Record:
    """The clinical variables and the count of a subject, without its images."""
    clinical = draw_clinical(random_streams(seed, hospital.name, index)["clinical"])
    return Record(clinical, subject_count(clinical, hospital, settings))


def subject_protocol(hospital: Hospital, settings: CohortSettings, rng: np.random.Generator) -> Hospital:
    """The hospital as it scans one subject: size, contrast and difficulty as set, and what varies within the site.

    Args:
        hospital: with its own matrix and its diffusion protocol.
        settings: of the cohort.
        rng: the subject's stream for the protocol.
    """
    protocol = hospital.scaled(settings.size).for_contrast(settings.contrast)
    return protocol.with_noise(DIFFICULTIES[settings.difficulty].snr_factor).for_subject(rng)


def simulate_subject(
    hospital: Hospital,
    seed: int,
    index: int,
    *,
    settings: CohortSettings = _DEFAULTS,
    count: int | None = None,
) -> SimulatedSubject:
    """A subject and its scan.

    Args:
        hospital: whose protocol and patients.
        seed: of the cohort.
        index: number of the subject within the hospital, from 1.
        settings: what holds for all subjects of a cohort.
        count: number of microbleeds instead of the subject's own; everything else stays as it is.
    """
    streams = random_streams(seed, hospital.name, index)
    record = draw_record(hospital, seed, index, settings)
    if count is not None:
        record = record._replace(n_microbleeds=count)
    if settings.backgrounds is not None:
        # Imported here: that module needs this one.
        from mhsev_monai.cohort.backgrounds import simulate_on_background

        return simulate_on_background(hospital, seed, index, settings, record, streams)
    return _simulated(subject_protocol(hospital, settings, streams["protocol"]), settings, record, streams)


def _simulated(protocol: Hospital, settings: CohortSettings, record: Record, streams: Streams) -> SimulatedSubject:
    """A subject with a simulated head."""
    grid, difficulty, rng = protocol.grid, DIFFICULTIES[settings.difficulty], streams["anatomy"]
    shape = placed_head(draw_head_shape(rng, record.clinical.age, grid), protocol)
    anatomy = head_anatomy(shape, grid, _SAMPLE_SPACING[settings.size])
    tensor = draw_tensor(rng, grid)
    mimics = draw_mimics(streams["mimics"], record.clinical, anatomy, grid, difficulty)
    n, obstacles, snr = record.n_microbleeds, mimics.bodies, protocol.snr
    imaging = bleed_imaging(protocol) if protocol.contrast == "dwi" else None
    bleeds = draw_bleeds(streams["bleeds"], n, anatomy, grid, difficulty, obstacles, snr, settings.label, imaging)
    effects = paint_mimics(mimics, grid)
    magnets: list[MagneticSphere] = [*bleeds, *(finding._replace(loss=0.0) for finding in mimics.calcifications)]
    head = Head(diseased_fractions(anatomy.fractions, effects), effects.kept, tensor, anatomy, magnets)
    return SimulatedSubject(
        record=record,
        images=scan_head(head, protocol, streams),
        labels=label_bleeds(bleeds, grid),
        bleeds=tuple(bleeds),
        mimics=mimics,
        anatomy=anatomy,
        affine=protocol.affine,
        b_values=protocol.b_values,
        te_ms=protocol.te_ms,
        tr_ms=protocol.tr_ms,
    )


def epi_readout(protocol: Hospital) -> EpiReadout:
    """What displaces signal in the hospital's echo-planar images, with the field as the slices see it."""
    along_x, along_y, along_z = (float(component) for component in protocol.rotation[2])
    return EpiReadout(protocol.phase_bandwidth_hz, FIELD_TESLA, (along_x, along_y, along_z))


def bleed_imaging(protocol: Hospital) -> Imaging:
    """What the hospital's echo-planar images make of a bleed."""
    return Imaging(epi_readout(protocol), point_spread(protocol.shape, sampling_of(protocol)).spread)


def sampling_of(protocol: Hospital) -> Sampling:
    """How the hospital reads its slices."""
    return Sampling(protocol.acquired, ghost=protocol.ghost)


def placed_head(shape: HeadShape, protocol: Hospital) -> HeadShape:
    """The head as oblique slices see it, moved along them until the brain is in the middle of the box.

    The position of the drawn head across the slices stays as what a technologist leaves of it.
    """
    centre = np.array(protocol.grid.centre)
    to_template = shape.to_template @ protocol.rotation
    shift = centre - protocol.rotation.T @ (centre - shape.shift)
    outline = np.linalg.solve(to_template, np.array(_BRAIN_OUTLINE).T)[2]
    shift[2] = centre[2] - (outline.max() + outline.min() + _ROOM_ABOVE) / 2 + shape.shift[2]
    return shape._replace(to_template=to_template, shift=shift)


def diseased_fractions(fractions: NDArray[np.float32], effects: MimicEffects) -> NDArray[np.float32]:
    """``(8, X, Y, Z)`` fractions of ``signal.SCANNED_TISSUES``: fluid, infarcts and hyperintensities replace tissue.

    Args:
        fractions: ``(6, X, Y, Z)``, see ``anatomy.TISSUES``.
        effects: shares of each voxel, from ``mimics.paint_mimics``.
    """
    scanned = np.zeros((len(fractions) + 2, *fractions.shape[1:]), dtype=np.float32)
    scanned[: len(fractions)] = fractions
    for share, channel in ((effects.hyperintense, 7), (effects.restricted, 6), (effects.fluid, 0)):
        # Only grey and white matter is replaced, so that no lesion grows into CSF or bone.
        tissue = scanned[1:4].sum(axis=0) + scanned[6:].sum(axis=0)
        scanned[1:4] *= 1 - share
        scanned[6:] *= 1 - share
        scanned[channel] += share * tissue
    return scanned


def scan_head(head: Head, protocol: Hospital, streams: Streams) -> NDArray[np.int16]:
    """The stored volumes, ``(X, Y, Z, N)``.

    Args:
        head: what is scanned.
        protocol: how, for this subject.
        streams: of the subject; those of shading, motion and noise are drawn from.
    """
    grid, spin_echo = protocol.grid, protocol.contrast == "dwi"
    flip = None if spin_echo else protocol.flip_degrees
    contrasts = [Contrast(protocol.te_ms, protocol.tr_ms, b, flip) for b in protocol.b_values]
    sigma = tissue_signal(TISSUE_TABLE["white"], contrasts[0]._replace(b=0.0)) / protocol.snr
    volumes = _head_signals(head, protocol, contrasts)
    shading = coil_shading(streams["shading"], grid, protocol.shading)
    sampling = sampling_of(protocol)
    mask = _filled_head(head.fractions) if protocol.masked_background else np.ones(grid.shape, dtype=np.bool_)
    images = np.empty((*grid.shape, len(volumes)), dtype=np.int16)
    poses = draw_poses(streams["motion"], protocol.b_values)
    for number, (volume, pose) in enumerate(zip(volumes, poses, strict=True)):
        image = acquired_image(moved(volume, pose, grid) * shading, sampling, sigma, streams["noise"])
        images[..., number] = stored_integers(image * mask, protocol.gain)
    return images


def _head_signals(head: Head, protocol: Hospital, contrasts: Sequence[Contrast]) -> list[NDArray[np.float32]]:
    """Noise-free volumes with what air and bleeds do to them, the head at rest.

    Bleeds act on the image that air has distorted, so that they lie where their labels say.
    """
    grid, spin_echo = protocol.grid, protocol.contrast == "dwi"
    field = air_field(head.anatomy, grid, FIELD_TESLA)
    kept = head.kept * through_slice_factor(field, _SPIN_ECHO_DEPHASING_MS if spin_echo else protocol.te_ms)
    volumes = []
    for contrast, direction in zip(contrasts, protocol.directions, strict=True):
        deviation = head.tensor.deviation(direction, grid) if any(direction) else None
        volumes.append(volume_signal(head.fractions, contrast, deviation) * kept)
    epi = epi_readout(protocol)
    if spin_echo:
        volumes = epi_distorted(volumes, field, protocol.phase_bandwidth_hz)
        factor = spin_echo_epi_factor(head.magnets, grid, epi)
    else:
        factor = gradient_echo_factor(head.magnets, grid, protocol.te_ms, FIELD_TESLA, epi.field_direction)
    return [volume * factor for volume in volumes]


def _filled_head(fractions: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a scanner that masks the background keeps the image: the head with its bones."""
    head = fractions.sum(axis=0) > _HEAD_SHARE
    filled = np.stack([ndimage.binary_fill_holes(part) for part in np.moveaxis(head, 2, 0)], axis=2)
    return np.asarray(ndimage.binary_dilation(filled, np.ones((3, 3, 1))))
