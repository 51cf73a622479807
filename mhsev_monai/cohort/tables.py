"""Tables and descriptions of a simulated hospital: participants, bleeds of a subject, and what BIDS asks of a root."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhsev_monai._version import __version__
from mhsev_monai.cohort.clinical import RISK_FACTORS, Clinical
from mhsev_monai.cohort.disease import Bleed
from mhsev_monai.participants import COUNT_COLUMN

_BIDS_VERSION = "1.10.0"
_NO_YES = {"0": "no", "1": "yes"}
_FLAGS = tuple(name for name in RISK_FACTORS if name != "male")

PARTICIPANT_COLUMNS: dict[str, dict[str, Any]] = {
    "age": {"Description": "Age at the scan; simulated", "Units": "year"},
    "sex": {"Description": "Sex; simulated", "Levels": {"F": "female", "M": "male"}},
    **{name: {"Description": f"{RISK_FACTORS[name].description}; simulated", "Levels": _NO_YES} for name in _FLAGS},
    COUNT_COLUMN: {"Description": "Number of microbleeds planted in the scan that count; a whole number from 0"},
}
"""Columns of participants.tsv beside the id, with their BIDS descriptions."""

READER_COLUMNS: dict[str, dict[str, Any]] = {
    COUNT_COLUMN: PARTICIPANT_COLUMNS[COUNT_COLUMN],
    "occult_count": {
        "Description": "Number of microbleeds planted beside them that b = 0 shows too faintly to count; "
        "known to the simulation alone"
    },
    "reader_2_count": {
        "Description": "Number of microbleeds that a simulated second reader reports, who misses faint ones and takes "
        "some mimics for microbleeds; for comparison, not for prediction"
    },
}
"""Columns of the table of readers: what follows from the truth stands there, where no model takes it for a variable."""

LESION_COLUMNS: dict[str, dict[str, Any]] = {
    "number": {"Description": "Label in the mask desc-microbleeds, or in desc-occult where counted is 0"},
    "x": {"Description": "Middle of the core in world coordinates, to the right", "Units": "mm"},
    "y": {"Description": "The same, to the front", "Units": "mm"},
    "z": {"Description": "The same, upwards", "Units": "mm"},
    "diameter": {"Description": "Diameter of the core that holds hemosiderin", "Units": "mm"},
    "loss": {"Description": "Share of the spin-echo signal that is lost inside the core, 0 to 1"},
    "susceptibility": {"Description": "Volume susceptibility of the core against tissue, SI", "Units": "ppm"},
    "region": {"Description": "Group of the Microbleed Anatomical Rating Scale: lobar, deep or infratentorial"},
    "counted": {"Description": f"Whether {COUNT_COLUMN} includes it", "Levels": _NO_YES},
    "contrast_to_noise": {
        "Description": "Expected contrast of the darkest voxel on b = 0, in standard deviations of the noise"
    },
}
"""Columns of a subject's table of bleeds, with their descriptions."""

README = """Simulated hospital {name}
{underline}

Nobody was scanned: microbleeds and what surrounds them are made by mhsev (package mhsev_monai.cohort) from anatomical
templates, published physics and random numbers. In a cohort with backgrounds the images around the microbleeds are
real scans. Nothing here says how well a method works on patients.

participants.tsv        clinical variables and numbers of microbleeds, described in participants.json
sub-*                   scans
derivatives/truth       readers.tsv: occult microbleeds and a second reader's count;
                        masks, voxel = number of the microbleed: desc-microbleeds for those that count, desc-occult for
                        those too faint to count; and a table of all of them. For evaluation, not for prediction
"""


class Participant(NamedTuple):
    """A row of participants.tsv and of the table of readers.

    Attributes:
        clinical: the subject's variables.
        n_microbleeds: those that count.
        n_occult: those that are there and do not count.
        n_reader_2: what the second reader reports.
    """

    clinical: Clinical
    n_microbleeds: int
    n_occult: int
    n_reader_2: int

    def cells(self) -> tuple[str, ...]:
        """In the order of ``PARTICIPANT_COLUMNS``."""
        flags = (int(getattr(self.clinical, name)) for name in _FLAGS)
        row = (self.clinical.age, self.clinical.sex, *flags, self.n_microbleeds)
        return tuple(str(cell) for cell in row)

    def readings(self) -> tuple[str, ...]:
        """In the order of ``READER_COLUMNS``."""
        return str(self.n_microbleeds), str(self.n_occult), str(self.n_reader_2)


def participants_table(participants: Sequence[tuple[str, Participant]]) -> str:
    """The text of participants.tsv from ids and rows."""
    rows = [("participant_id", *PARTICIPANT_COLUMNS), *((name, *row.cells()) for name, row in participants)]
    return _tsv(rows)


def readers_table(participants: Sequence[tuple[str, Participant]]) -> str:
    """The text of the table of readers from ids and rows."""
    rows = [("participant_id", *READER_COLUMNS), *((name, *row.readings()) for name, row in participants)]
    return _tsv(rows)


def lesions_table(bleeds: Sequence[Bleed], positions: NDArray[np.float64]) -> str:
    """The text of a subject's table of bleeds.

    Args:
        bleeds: all of them, in the order of their labels.
        positions: ``(n, 3)`` world coordinates of their middles, mm.
    """
    rows: list[tuple[str, ...]] = [tuple(LESION_COLUMNS)]
    n_before = {True: 0, False: 0}
    for bleed, position in zip(bleeds, positions, strict=True):
        n_before[bleed.counted] += 1
        numbers = (*position, 2 * bleed.body.half_axes[0], bleed.loss, bleed.susceptibility_ppm)
        cells = (f"{number:.3f}" for number in numbers)
        counted, contrast = str(int(bleed.counted)), f"{bleed.contrast_to_noise:.3f}"
        rows.append((str(n_before[bleed.counted]), *cells, bleed.region.name.lower(), counted, contrast))
    return _tsv(rows)


class PlantedBleeds(NamedTuple):
    """What a table of bleeds tells: ``contrasts`` to noise of all, and how many of them are occult."""

    contrasts: tuple[float, ...]
    n_occult: int


def read_lesions(path: Path) -> PlantedBleeds:
    """What :func:`lesions_table` wrote.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return PlantedBleeds(
        tuple(float(row["contrast_to_noise"]) for row in rows), sum(row["counted"] == "0" for row in rows)
    )


def dataset_descriptions(site: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``dataset_description.json`` of a hospital's root and of its derivative with the truth."""
    generator = [{"Name": "mhsev", "Version": __version__}]
    shared = {"BIDSVersion": _BIDS_VERSION, "GeneratedBy": generator}
    raw = {"Name": f"Simulated hospital {site}", "DatasetType": "raw", **shared}
    return raw, {"Name": f"Microbleeds planted at {site}", "DatasetType": "derivative", **shared}


def _tsv(rows: Sequence[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(rows)
    return stream.getvalue()
