"""What a DICOM series is, from standard elements first and the words of its description last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from mhsev_monai.ingest.dicom.headers import DicomFile
from mhsev_monai.ingest.dicom.positions import n_orientations, slice_positions
from mhsev_monai.scan_contrast import ScanContrast

MR_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.4": "MR Image Storage",
    "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR Image Storage",
    "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR Image Storage",
}
SHORT_ECHO_MS = 12.0
"""Gradient echoes shorter than this show anatomy and fields, longer ones susceptibility; microbleed protocols at 3 T
use 15 to 30 ms (Greenberg et al., Lancet Neurology 8:165, 2009)."""


class SeriesKind(StrEnum):
    """Kinds of series, in words for a reader."""

    DIFFUSION = "diffusion"
    ADC = "ADC map"
    EXPONENTIAL_ADC = "exponential ADC map"
    TRACE = "trace-weighted image"
    FA = "fractional anisotropy map"
    DERIVED_B0 = "derived b = 0 image"
    DERIVED = "derived image"
    SE_EPI = "spin-echo EPI"
    T2STAR = "T2*-weighted GRE"
    FMRI = "T2*-weighted EPI (fMRI)"
    SWI = "SWI"
    MINIMUM_INTENSITY = "minimum intensity projection"
    PHASE = "phase image"
    FIELD_MAP = "field map"
    PERFUSION = "perfusion"
    LOCALISER = "localiser"
    PHANTOM = "phantom"
    OTHER_PART = "image of another part of the body"
    OTHER_MR = "other MR image"
    NO_MR_IMAGE = "no MR image"


ACCEPTED = {
    ScanContrast.DWI: (SeriesKind.DIFFUSION,),
    ScanContrast.SE_EPI: (SeriesKind.SE_EPI,),
    ScanContrast.T2STAR: (SeriesKind.T2STAR, SeriesKind.FMRI),
    ScanContrast.SWI: (SeriesKind.SWI,),
}
"""Which kinds each contrast takes."""

# Tokens of Image Type (0008,0008), standard (C.8.13.3.1.1) and of vendors, that name a kind by themselves.
_BY_TOKEN: tuple[tuple[SeriesKind, frozenset[str]], ...] = (
    (SeriesKind.LOCALISER, frozenset({"LOCALIZER"})),
    (SeriesKind.EXPONENTIAL_ADC, frozenset({"EADC", "EXP", "EXPADC", "EXPONENTIAL"})),
    (SeriesKind.ADC, frozenset({"ADC", "ADC_UNSPECIFIED", "APPARENT"})),
    (SeriesKind.FA, frozenset({"FA", "FRACTIONAL_ANISOTROPY", "COLFA", "FA_COLOR", "FRACT_ANISO", "FAC"})),
    (SeriesKind.TRACE, frozenset({"TRACEW", "TRACE", "ISOTROPIC", "DW_TRACE"})),
    (SeriesKind.DERIVED_B0, frozenset({"TENSOR_B0"})),
    (SeriesKind.MINIMUM_INTENSITY, frozenset({"MNIP", "MIN IP", "MINIP", "MIN_IP"})),
    (SeriesKind.FIELD_MAP, frozenset({"B0 MAP", "B0", "FIELD_MAP", "FIELDMAP", "B0_MAP", "B1"})),
    (SeriesKind.PHASE, frozenset({"P", "PHASE", "PHASE MAP", "PHASE_MAP", "I", "R", "REAL", "IMAGINARY"})),
    (SeriesKind.SWI, frozenset({"SWI", "SWAN", "SUSCEPTIBILITY"})),
    (SeriesKind.PERFUSION, frozenset({"PERFUSION", "ASL", "CBF", "RELCBF", "RELCBV", "RELMTT", "TTP"})),
    (SeriesKind.FMRI, frozenset({"FMRI"})),
)
# Body Part Examined (0018,0015), terms of PS3.16 annex L; what is not named here may show a head.
_OTHER_PARTS = frozenset(
    {"PROSTATE", "ABDOMEN", "PELVIS", "LIVER", "KIDNEY", "BREAST", "CHEST", "HEART", "KNEE", "HIP", "SHOULDER", "ANKLE"}
    | {"FOOT", "HAND", "WRIST", "ELBOW", "UTERUS", "RECTUM", "PANCREAS", "LSPINE", "TSPINE", "LEG", "THIGH", "BLADDER"}
)
_SWI_WORDS = re.compile(r"\b(T2[ _]?)?SWI|SWAN|SWIP|VENOBOLD|\bFSBB|\bBSI\b")
_PERFUSION_WORDS = re.compile(r"PERF|\bASL\b|PCASL|\bDSC\b")
_FIELD_MAP_WORDS = re.compile(r"GRE[ _]?FIELD|FIELD[ _]?MAP|B0[ _]?MAP")


def classify(files: Sequence[DicomFile]) -> SeriesKind:
    """The kind of files that belong together: one series, with equal Image Type.

    Args:
        files: at least one.
    """
    first = files[0]
    if first.sop_class not in MR_IMAGES or first.modality not in ("MR", ""):
        return SeriesKind.NO_MR_IMAGE
    if "PHANTOM" in f"{first.named} {first.body_part}":
        return SeriesKind.PHANTOM
    if set(re.split(r"\W+", first.body_part)) & _OTHER_PARTS:
        return SeriesKind.OTHER_PART
    types = set(first.image_type) | set(first.frames[0].image_type if first.frames else ())
    if first.component in ("PHASE", "REAL", "IMAGINARY"):
        return SeriesKind.PHASE
    by_token = next((kind for kind, tokens in _BY_TOKEN if tokens & types), None)
    if by_token is SeriesKind.SWI and "PHASE" in types:
        return SeriesKind.PHASE
    if by_token is not None:
        return by_token
    if first.samples > 1 or first.photometric == "RGB":
        return SeriesKind.FA if "DIFFUSION" in types else SeriesKind.DERIVED
    if _is_diffusion(files, types):
        return SeriesKind.DERIVED if "DERIVED" in types else SeriesKind.DIFFUSION
    if "DERIVED" in types and not _SWI_WORDS.search(first.named):
        return SeriesKind.DERIVED
    return _undiffused(files)


def _is_diffusion(files: Sequence[DicomFile], types: set[str]) -> bool:
    """Whether the files say so in a way that no fMRI or field map does."""
    b_values = [frame.b_value for file in files for frame in file.frames]
    if any(b is not None and b > 0 for b in b_values):
        return True
    if "DIFFUSION" in types or files[0].contrast == "DIFFUSION":
        return True
    # A series of b = 0 alone, such as one with the other phase encoding, has the element and the value 0; but Philips
    # writes 0 on every image of the system.
    return files[0].vendor != "Philips" and any(b is not None for b in b_values)


def _undiffused(files: Sequence[DicomFile]) -> SeriesKind:
    """The kind of an image without diffusion weighting."""
    first = files[0]
    if n_orientations(files) > 1:
        return SeriesKind.LOCALISER
    if _PERFUSION_WORDS.search(first.named) or first.contrast == "PERFUSION":
        return SeriesKind.PERFUSION
    if _SWI_WORDS.search(first.named):
        return SeriesKind.SWI
    if _FIELD_MAP_WORDS.search(first.named) and "GR" in first.sequence:
        return SeriesKind.FIELD_MAP
    if "EP" in first.sequence:
        return _echo_planar(files)
    echo_time = first.frames[0].echo_time if first.frames else None
    if "GR" in first.sequence and "IR" not in first.sequence and echo_time is not None:
        return SeriesKind.T2STAR if echo_time >= SHORT_ECHO_MS else SeriesKind.OTHER_MR
    return SeriesKind.OTHER_MR


def _echo_planar(files: Sequence[DicomFile]) -> SeriesKind:
    """Spin-echo or gradient-echo EPI; GE marks the former with RM (research mode) alone, so the latter must say GR."""
    first = files[0]
    if "GR" not in first.sequence:
        return SeriesKind.SE_EPI
    volumes = len({*slice_positions(files)})
    n_slices = sum(len(file.frames) for file in files)
    single = first.n_times <= 1 and not first.mosaic and n_slices <= volumes
    return SeriesKind.T2STAR if single else SeriesKind.FMRI
