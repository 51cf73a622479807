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
from mhsev_monai.ingest.dicom.frames import Frame, is_isotropic, read_frames

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DICOMDIR = "1.2.840.10008.1.3.10"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NOBODY = {"", "ANON", "ANONYMOUS", "ANONYMIZED", "ANONYMISED", "UNKNOWN", "NONE", "NOBODY", "TEST", "PATIENT", "N/A"}


@dataclass(frozen=True)
class DicomFile:
    """The facts of one file. Identifiers are kept to group by and to make keys of, and are never shown.

    Lengths in mm, times in ms. ``slice_steps`` are the spacing between slices and their thickness, as far as they are
    there; ``isotropic`` tells a trace-weighted image among directional ones; ``mosaic`` says that one picture holds the
    slices of a volume side by side, ``n_tiles`` how many, 0 where the header does not tell; ``named`` holds words for
    :func:`~.kinds.classify` to look for.
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
    acquisition: int | None
    repetition_time: float | None
    inversion_time: float | None
    n_times: int
    slice_steps: tuple[float, ...]
    declared_slices: int | None
    mosaic: bool
    n_tiles: int
    lossy: bool
    isotropic: bool
    body_part: str
    born: str = field(repr=False)
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
    # (0002,0000) or (0008,00xx), little endian, as the first element of a file without preamble.
    bare = start[:4] == b"\x02\0\0\0" or (start[:2] == b"\x08\0" and start[3:4] == b"\0")
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
        patient=_patient(tags.text(dataset, 0x00100020)),
        study=tags.text(dataset, 0x0020000D),
        series=tags.text(dataset, 0x0020000E),
        instance_uid=tags.text(dataset, 0x00080018),
        sop_class=tags.text(dataset, 0x00080016),
        transfer_syntax=transfer_syntax,
        modality=_first(tags.words(dataset, 0x00080060)),
        image_type=tags.words(dataset, 0x00080008),
        vendor=_vendor(_first(tags.words(dataset, 0x00080070))),
        sequence=_sequence(dataset),
        named=described,
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
        acquisition=tags.whole(dataset, 0x00200012),
        repetition_time=tags.number(dataset, 0x00180080),
        inversion_time=tags.number(dataset, 0x00180082),
        n_times=temporal if temporal is not None and temporal > 0 else 1,
        slice_steps=tags.numbers(dataset, 0x00180088)[:1] + tags.numbers(dataset, 0x00180050)[:1],
        declared_slices=_declared_slices(dataset),
        # Enhanced images of some scanners keep the word, and hold a slice a frame all the same.
        mosaic=bool({"MOSAIC", "VFRAME"} & set(tags.words(dataset, 0x00080008)))
        and not tags.raw_value(dataset, tags.PER_FRAME),
        n_tiles=max(tags.whole(dataset, tags.SIEMENS_TILES) or tags.whole(dataset, tags.UIH_TILES) or 0, 0),
        lossy=_first(tags.words(dataset, 0x00282110)) == "01",
        isotropic=is_isotropic([dataset]),
        body_part=body_part,
        born=tags.text(dataset, 0x00100030),
        sex=_first(tags.words(dataset, 0x00100040)),
        age=_age(dataset),
        frames=read_frames(dataset),
    )


def _patient(patient_id: str) -> str:
    """Patient ID; empty where there is none, or a word that stands for none.

    Its issuer has no part in it: archives add it to some studies of a patient and not to others.
    """
    return "" if patient_id.strip(" 0_-*?").upper() in _NOBODY else patient_id


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
    if (tags.number(dataset, tags.PHILIPS_EPI) or 0) > 1:
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
