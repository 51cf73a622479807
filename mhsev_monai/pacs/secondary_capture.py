"""The slices with findings as colour pictures, circles and words burned in: what every viewer shows."""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from mhsev_monai.pacs.context import RESEARCH, ObjectKind, ResultContext, own_equipment
from mhsev_monai.pacs.findings import MarkedFinding
from mhsev_monai.pacs.geometry import PixelPlace, patient_orientation
from mhsev_monai.pacs.patient_study import plain_identity
from mhsev_monai.pacs.source_series import SourceSeries, SourceSlice

SIDE = 512
"""Rows and columns of a picture."""
MARK_COLOUR, WORD_COLOUR = (255, 210, 0), (255, 120, 120)
_LEAST_RADIUS_MM, _BRIGHTEST = 5.0, 99.5
_STRIP = 20


def display_window(source: SourceSeries) -> tuple[float, float]:
    """Stored values that are shown black and white, the same for all slices."""
    stored = np.stack([each.stored for each in source.slices])
    low, high = float(min(stored.min(), 0)), float(np.percentile(stored, _BRIGHTEST))
    return low, max(high, low + 1.0)


def mark_radius(marked: SourceSlice, finding: MarkedFinding) -> float:
    """Radius of a mark in pixels of the slice: it leaves the finding itself free."""
    size = finding.diameter_mm or 0.0
    return max(_LEAST_RADIUS_MM, 0.5 * size + 2.0) / max(marked.plane.spacing)


def secondary_captures(context: ResultContext) -> tuple[Dataset, ...]:
    """A picture of each slice that has findings; of the middle slice where there is none."""
    slices = context.source.slices
    chosen = sorted({finding.slice_index for finding in context.findings}) or [len(slices) // 2]
    return tuple(_capture(context, index, instance) for instance, index in enumerate(chosen, start=1))


def _capture(context: ResultContext, index: int, instance: int) -> Dataset:
    marked = context.source.slices[index]
    identity = plain_identity(context.source.header)
    rows, columns = patient_orientation(marked.plane.orientation)
    made = SCImage(
        pixel_array=draw_slice(context, index),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=(rows[0], columns[0]),
        study_instance_uid=str(marked.reference.StudyInstanceUID),
        patient_id=identity.PatientID,
        patient_name=identity.PatientName,
        patient_birth_date=identity.PatientBirthDate,
        patient_sex=identity.PatientSex,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[own_equipment(context)],
        **context.common(ObjectKind.CAPTURE, instance),
    )
    made.PatientOrientation = [rows, columns]
    made.BurnedInAnnotation = "YES"
    made.RecognizableVisualFeatures = "NO"
    made.LossyImageCompression = "00"
    source = Dataset()
    source.ReferencedSOPClassUID = marked.reference.SOPClassUID
    source.ReferencedSOPInstanceUID = marked.reference.SOPInstanceUID
    if marked.frame is not None:
        source.ReferencedFrameNumber = marked.frame
    made.SourceImageSequence = [source]
    made.ImageComments = f"{RESEARCH}. Slice {context.source.slice_number(index)} of {len(context.source.slices)}."
    return context.finish(made)


def picture_scale(marked: SourceSlice) -> tuple[float, float]:
    """Pixels of the picture to one column and one row of the slice; lengths keep their proportions."""
    rows, columns = marked.stored.shape
    height, width = rows * marked.plane.spacing[0], columns * marked.plane.spacing[1]
    per_mm = min((SIDE - 2 * _STRIP) / height, SIDE / width)
    return per_mm * marked.plane.spacing[1], per_mm * marked.plane.spacing[0]


def in_capture(marked: SourceSlice, pixel: PixelPlace) -> tuple[float, float]:
    """Where the centre of a slice's pixel lies in the picture, x and y."""
    across, down = picture_scale(marked)
    rows, columns = marked.stored.shape
    left, top = (SIDE - across * columns) / 2, (SIDE - down * rows) / 2
    return left + (pixel.column + 0.5) * across, top + (pixel.row + 0.5) * down


def draw_slice(context: ResultContext, index: int) -> NDArray[np.uint8]:
    """``(SIDE, SIDE, 3)``: the slice with circles, the words above and below it."""
    marked = context.source.slices[index]
    low, high = display_window(context.source)
    grey = np.clip((marked.stored.astype(np.float64) - low) / (high - low), 0, 1)
    rows, columns = grey.shape
    across, down = picture_scale(marked)
    size = max(round(across * columns), 1), max(round(down * rows), 1)
    picture = Image.new("RGB", (SIDE, SIDE))
    slice_picture = Image.fromarray((255 * grey).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    picture.paste(slice_picture.convert("RGB"), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    findings = [finding for finding in context.findings if finding.slice_index == index]
    for finding in findings:
        x, y = in_capture(marked, finding.pixel)
        radius = mark_radius(marked, finding) * min(across, down)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=MARK_COLOUR, width=2)
        draw.text((x + radius + 2, y - 8), str(finding.number), fill=MARK_COLOUR, font=font)
    grade = context.grade
    doubt = "" if grade.abstains is None else " (the model abstains)"
    below = f"{len(findings)} marked here; estimate {grade.count}, grade {grade.grade.label}{doubt}; not for diagnosis"
    draw.text(
        (4, 2),
        f"{RESEARCH}   slice {context.source.slice_number(index)}/{len(context.source.slices)}",
        fill=WORD_COLOUR,
        font=font,
    )
    draw.text((4, SIDE - 18), below, fill=WORD_COLOUR, font=font)
    return np.asarray(picture, dtype=np.uint8)
