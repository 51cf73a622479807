"""What is known of a DICOM file from its header, cut to what ingest needs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom import tags
from mhsev_monai.ingest.dicom.b_values import frame_b_value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DICOMDIR = "1.2.840.10008.1.3.10"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_MOST_FRAMES = 200_000
_PLANE_POSITION, _PLANE_ORIENTATION, _PIXEL_MEASURES = 0x00209113, 0x00209116, 0x00289110
_FRAME_CONTENT, _ECHO, _REAL_WORLD, _FRAME_TYPE = 0x00209111, 0x00189114, 0x00289145, 0x00189226
_GROUPS = (
    _PLANE_POSITION,
    _PLANE_ORIENTATION,
    _PIXEL_MEASURES,
    _FRAME_CONTENT,
    _ECHO,
    _REAL_WORLD,
    _FRAME_TYPE,
    0x00189117,
)
Triple = tuple[float, ...]


@dataclass(frozen=True)
class Frame:
    """One slice: where it lies and how it was weighted. Lengths in mm, LPS coordinates as DICOM has them.

    Attributes:
        number: index in its file, from 0.
        position: of the first pixel, 3 numbers; empty if the header does not tell.
        orientation: directions of rows and columns, 6 numbers; empty if the header does not tell.
        spacing: between rows, between columns; empty if the header does not tell.
        b_value: s/mm^2; None if the header does not tell.
        stack_position: of the slice within its stack, from 1; None if the header does not tell.
        stack: label of the stack.
        slope, intercept: from stored to real values.
        echo_time: ms; None if the header does not tell.
        image_type: what the frame's own Image Type says beyond its file's; empty if nothing.
    """

    number: int
    position: Triple
    orientation: Triple
    spacing: Triple
    b_value: float | None
    stack_position: int | None
    stack: str
    slope: float
    intercept: float
    echo_time: float | None
    image_type: tuple[str, ...]


@dataclass(frozen=True)
class DicomFile:
    """The facts of one file. Identifiers are kept to group by and to make keys of, and are never shown.

    Lengths in mm, times in ms. ``mosaic`` says that one picture holds the slices of a volume side by side, ``n_tiles``
    how many, 0 where the header does not tell. ``named`` holds words for :func:`~.kinds.classify` to look for.
    """

    path: Path = field(repr=False)
    patient: str = field(repr=False)
    study: str = field(repr=False)
    series: str = field(repr=False)
    instance_uid: str = field(repr=False)
    sop_class: str
    transfer_syntax: str
    modality: str
    image_type: tuple[str, ...]
    vendor: str
    sequence: frozenset[str]
    named: str = field(repr=False)
    component: str
    contrast: str
    rows: int
    columns: int
    n_frames: int
    samples: int
    photometric: str
    bits_allocated: int
    signed: bool
    series_number: int
    instance: int | None
    repetition_time: float | None
    inversion_time: float | None
    acquisition_3d: bool
    n_times: int
    slice_step: float | None
    declared_slices: int | None
    mosaic: bool
    n_tiles: int
    sex: str
    age: int | None
    frames: tuple[Frame, ...]


@contextmanager
def quiet_parser() -> Iterator[None]:
    """Keep pydicom from logging or warning about values: it quotes them."""
    import pydicom

    logger = logging.getLogger("pydicom")
    level, mode = logger.level, pydicom.config.settings.reading_validation_mode
    logger.setLevel(logging.CRITICAL + 1)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        pydicom.config.settings.reading_validation_mode = mode


def looks_like_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM does: with the preamble, or at once with a low group, as some old writers do."""
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    # (0002,0000) or (0008,00xx), little endian, followed by a value representation or a short length.
    bare = start[:4] in (b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0")
    return start[128:132] == b"DICM" or (len(start) >= 8 and bare)


def read_header(path: Path) -> DicomFile | None:
    """The facts of a file; None for a DICOMDIR, which lists files and holds no image.

    Raises:
        ScanError: if the file cannot be read as DICOM.
    """
    import pydicom

    try:
        with path.open("rb") as stream:
            bare = stream.read(132)[128:] != b"DICM"
        meta = pydicom.dataset.FileMetaDataset() if bare else pydicom.filereader.read_file_meta_info(path)
        if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
            raise ScanError("the file is deflated as a whole; other transfer syntaxes are accepted; export it again")
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags.READ), force=bare)
        if not tags.text(dataset, 0x00080016) and str(meta.get("MediaStorageSOPClassUID", "")) == _DICOMDIR:
            return None
        facts = _facts(path, dataset, str(meta.get("TransferSyntaxUID", "")))
        if not facts.sop_class:
            # The parser takes a header that is cut off for a short one.
            raise ScanError("the file does not say what kind of object it is; it may be cut off; export it again")
        return facts
    except ScanError:
        raise
    except Exception:
        # A damaged file can make the parser raise anything, RecursionError included, and its texts quote the file.
        raise ScanError("the file cannot be read as DICOM; it may be damaged; export it again") from None


def _facts(path: Path, dataset: Dataset, transfer_syntax: str) -> DicomFile:
    described = " ".join(" ".join(tags.words(dataset, t)) for t in (0x0008103E, 0x00181030, 0x00180024, 0x00189005))
    body_part = " ".join(tags.words(dataset, 0x00180015))
    temporal = tags.whole(dataset, 0x00200105)
    return DicomFile(
        path=path,
        patient=_patient(dataset),
        study=tags.text(dataset, 0x0020000D),
        series=tags.text(dataset, 0x0020000E),
        instance_uid=tags.text(dataset, 0x00080018),
        sop_class=tags.text(dataset, 0x00080016),
        transfer_syntax=transfer_syntax,
        modality=_first(tags.words(dataset, 0x00080060)),
        image_type=tags.words(dataset, 0x00080008),
        vendor=_vendor(_first(tags.words(dataset, 0x00080070))),
        sequence=_sequence(dataset),
        named=f"{described} {body_part}",
        component=_first(tags.words(dataset, 0x00089208)),
        contrast=_first(tags.words(dataset, 0x00089209)),
        rows=tags.whole(dataset, 0x00280010) or 0,
        columns=tags.whole(dataset, 0x00280011) or 0,
        n_frames=max(tags.whole(dataset, 0x00280008) or 1, 0),
        samples=tags.whole(dataset, 0x00280002) or 1,
        photometric=_first(tags.words(dataset, 0x00280004)),
        bits_allocated=tags.whole(dataset, 0x00280100) or 0,
        signed=tags.whole(dataset, 0x00280103) == 1,
        series_number=tags.whole(dataset, 0x00200011) or 0,
        instance=tags.whole(dataset, 0x00200013),
        repetition_time=tags.number(dataset, 0x00180080),
        inversion_time=tags.number(dataset, 0x00180082),
        acquisition_3d=_first(tags.words(dataset, 0x00180023)) == "3D",
        n_times=temporal if temporal is not None and temporal > 0 else 1,
        slice_step=max(tags.numbers(dataset, 0x00180050) + tags.numbers(dataset, 0x00180088), default=None),
        declared_slices=_declared_slices(dataset),
        mosaic=bool({"MOSAIC", "VFRAME"} & set(tags.words(dataset, 0x00080008))),
        n_tiles=max(tags.whole(dataset, tags.SIEMENS_TILES) or tags.whole(dataset, tags.UIH_TILES) or 0, 0),
        sex=_first(tags.words(dataset, 0x00100040)),
        age=_age(dataset),
        frames=_frames(dataset),
    )


def _patient(dataset: Dataset) -> str:
    """Patient ID with its issuer; empty where there is no ID, whoever would have issued it."""
    patient_id = tags.text(dataset, 0x00100020)
    return f"{patient_id}\0{tags.text(dataset, 0x00100021)}".strip("\0") if patient_id else ""


def _first(parts: tuple[str, ...]) -> str:
    return parts[0] if parts else ""


def _vendor(manufacturer: str) -> str:
    """The vendor by a name of ours: what the file says is free text."""
    known = {"SIEMENS": "Siemens", "GE ": "GE", "GE_": "GE", "GEMS": "GE", "PHILIPS": "Philips", "CANON": "Canon"}
    known |= {"TOSHIBA": "Canon", "UIH": "UIH", "UNITED IMAGING": "UIH", "HITACHI": "Fujifilm", "FUJIFILM": "Fujifilm"}
    known |= {"BRUKER": "Bruker", "MEDISO": "Mediso", "NEUSOFT": "Neusoft", "ALLTECH": "Alltech", "GE": "GE"}
    return next((name for start, name in known.items() if manufacturer.startswith(start)), "other")


def _sequence(dataset: Dataset) -> frozenset[str]:
    """The defined terms of Scanning Sequence that apply, from the enhanced elements too."""
    found = set(tags.words(dataset, 0x00180020)) & {"SE", "IR", "GR", "EP", "RM"}
    if _first(tags.words(dataset, 0x00189018)) == "YES":
        found.add("EP")
    echo = _first(tags.words(dataset, 0x00189008))
    found |= {"SPIN": {"SE"}, "GRADIENT": {"GR"}, "BOTH": {"SE", "GR"}}.get(echo, set())
    return frozenset(found)


def _declared_slices(dataset: Dataset) -> int | None:
    """How many slices the scanner says the volume has."""
    found = (tags.whole(dataset, tag) for tag in (tags.PHILIPS_SLICES, tags.GE_SLICES, 0x00540081))
    return next((n for n in found if n is not None and n > 0), None)


def _age(dataset: Dataset) -> int | None:
    """Whole years at the study, 0 to 120; None if the header does not tell."""
    stated = _first(tags.words(dataset, 0x00101010))
    if len(stated) == 4 and stated[:3].isdigit():
        years = {"Y": int(stated[:3]), "M": int(stated[:3]) // 12, "W": int(stated[:3]) // 52, "D": 0}.get(stated[3])
        return years if years is not None and years <= 120 else None
    born, studied = tags.text(dataset, 0x00100030), tags.text(dataset, 0x00080020)
    if len(born) == len(studied) == 8 and born.isdigit() and studied.isdigit():
        years = (int(studied) - int(born)) // 10_000
        return years if 0 <= years <= 120 else None
    return None


def _frames(dataset: Dataset) -> tuple[Frame, ...]:
    shared = _item(dataset, tags.SHARED)
    per_frame = tags.raw_value(dataset, tags.PER_FRAME)
    if not per_frame:
        n_frames = min(max(tags.whole(dataset, 0x00280008) or 1, 1), _MOST_FRAMES)
        return tuple(_frame(number, [dataset]) for number in range(n_frames))
    return tuple(
        _frame(number, [item, shared, dataset] if shared is not None else [item, dataset])
        for number, item in enumerate(per_frame)
    )


def _item(dataset: Dataset, tag: int) -> Dataset | None:
    """The only item of a sequence."""
    value = tags.raw_value(dataset, tag)
    try:
        item: Dataset | None = value[0] if value else None
    except (TypeError, IndexError, KeyError):
        return None
    return item


def _frame(number: int, sources: list[Dataset]) -> Frame:
    """A frame from its functional groups, the shared ones, and the file's own elements, in this order."""
    groups = [item for source in sources for tag in _GROUPS if (item := _item(source, tag)) is not None]
    everywhere = [*groups, *sources]

    def first(tag: int, length: int) -> Triple:
        found = (tags.numbers(item, tag) for item in everywhere)
        return next((value for value in found if len(value) == length), ())

    def one(tag: int) -> float | None:
        value = first(tag, 1)
        return value[0] if value else None

    echo_time = one(0x00189082)
    stack_position = one(0x00209057)
    slope, intercept = one(0x00281053), one(0x00281052)
    file_type = tags.words(sources[-1], 0x00080008)
    own_type = (tags.words(item, 0x00089007) for item in everywhere)
    return Frame(
        number=number,
        position=first(0x00200032, 3),
        orientation=first(0x00200037, 6),
        spacing=first(0x00280030, 2),
        b_value=frame_b_value(sources),
        stack_position=None if stack_position is None else int(stack_position),
        stack=next((name for item in groups if (name := tags.text(item, 0x00209056))), ""),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        echo_time=echo_time if echo_time is not None else one(0x00180081),
        image_type=tuple(word for word in next(filter(None, own_type), ()) if word not in file_type),
    )
