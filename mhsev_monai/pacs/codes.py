"""Concepts of the results: standard codes where there are any, and a scheme of our own for the rest."""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from mhsev_monai.severity import Severity
from mhsev_monai.trust import ABSTENTIONS

SCHEME = "99MHSEV"

MICROBLEED = CodedConcept("50960005", "SCT", "Hemorrhage")
ABNORMAL = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
BRAIN = CodedConcept("12738006", "SCT", "Brain")
SEVERITY = CodedConcept("246112005", "SCT", "Severity")
DIAMETER = CodedConcept("81827009", "SCT", "Diameter")
VOLUME = CodedConcept("118565006", "SCT", "Volume")

COUNT = CodedConcept("246206008", "SCT", "Number of lesions")
COUNT_LOW = CodedConcept("COUNT_LOW", SCHEME, "Lower end of the 90 % interval of the number")
COUNT_HIGH = CodedConcept("COUNT_HIGH", SCHEME, "Upper end of the 90 % interval of the number")
PROBABILITY = CodedConcept("PROBABILITY", SCHEME, "Probability that the finding is a microbleed")
PART = CodedConcept("PART", SCHEME, "Part of the brain")
DEPTH = CodedConcept("SIGNAL_LOSS", SCHEME, "Signal loss as a fraction of the surroundings")
FEATURE_MAP = CodedConcept("DSD", SCHEME, "Dynamic spectral decomposition; negative where dark")
FAMILY: Code = codes.cid7162.ArtificialIntelligence
PROCEDURE: Code = codes.cid100.MRIUnspecifiedBodyRegion

ABSTENTION = CodedConcept("ABSTENTION", SCHEME, "The model abstains")

NO_UNITS = CodedConcept("1", "UCUM", "no units")
NUMBER = CodedConcept("{microbleeds}", "UCUM", "microbleeds")
MM = CodedConcept("mm", "UCUM", "mm")
MM3 = CodedConcept("mm3", "UCUM", "cubic millimeter")

GRADES = {
    Severity.NONE: CodedConcept("260413007", "SCT", "None"),
    Severity.MILD: CodedConcept("255604002", "SCT", "Mild"),
    Severity.MODERATE: CodedConcept("6736007", "SCT", "Moderate"),
    Severity.SEVERE: CodedConcept("24484000", "SCT", "Severe"),
}


def part_of_brain(label: str) -> CodedConcept:
    """The concept of a part of the brain by its label in ``mhsev_monai.regions``."""
    return CodedConcept(label.upper().replace(" ", "_")[:16], SCHEME, label)


def abstention(code: str) -> CodedConcept:
    """Why a model abstains, a key of ``trust.ABSTENTIONS``."""
    return CodedConcept(code.upper(), SCHEME, ABSTENTIONS[code])


def grade_probability(label: str) -> CodedConcept:
    """The concept of the probability of one grade."""
    # Code values hold 16 characters.
    return CodedConcept(f"PROB_{label.upper()}", SCHEME, f"Probability of the grade {label}")
