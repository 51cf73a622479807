"""Checks of the scans: whether they are found, how many can be used, and why the others cannot. No case is named."""

from __future__ import annotations

import os
import re
from collections import Counter

from mhsev_flare.site_check.facts import SiteFacts
from mhsev_flare.site_check.report import FAIL, OK, SKIP, WARN, Finding
from mhsev_flare.site_data import LEAST_TRAINING_CASES, SiteError
from mhsev_flare.site_policy import PolicyError
from mhsev_monai.cases import Case, Split, split_cases
from mhsev_monai.errors import CohortError
from mhsev_monai.lesion_marks import lesion_mask_path
from mhsev_monai.severity import SCALES, GradingScale, Severity

_CASE = re.compile(r"\b(sub|ses)-[0-9A-Za-z+]+(_ses-[0-9A-Za-z+]+)?")
CONFIGURE = "mhsev site-config KIT --data-root DIR"
NAMED = "`mhsev features`"
MOST_REASONS = 4


def check_data_root(facts: SiteFacts) -> Finding:
    """Whether the folder of the scans is there and can be read."""
    try:
        root = facts.folders.data_root
        n_entries = sum(1 for _ in root.iterdir())
    except (SiteError, PolicyError) as error:
        return Finding(FAIL, "data root", str(error), CONFIGURE)
    except OSError as error:
        found = f"it cannot be read ({type(error).__name__})"
        return Finding(FAIL, "data root", found, "let the account that runs the site read it")
    return Finding(OK, "data root", f"{root}, {n_entries} entries")


def check_scans(facts: SiteFacts) -> Finding:
    """How many scans can be used, and why the others are left out, by number; images are not opened."""
    try:
        listed = facts.cases
    except CohortError as error:
        return Finding(FAIL, "scans", unnamed(str(error)), f"mend it; {NAMED} names the case")
    except (SiteError, PolicyError, OSError):
        return Finding(SKIP, "scans", "without a data root there are none")
    excluded = [*listed.excluded.values(), *filter(None, map(_unreadable, listed.cases))]
    n = len(listed.cases) + len(listed.excluded) - len(excluded)
    if not excluded:
        return Finding(OK, "scans", f"{n} can be used, none is left out")
    reasons = Counter(map(unnamed, excluded)).most_common()
    told = "; ".join(f"{number} with {reason}" for reason, number in reasons[:MOST_REASONS])
    more = f"; and {len(reasons) - MOST_REASONS} more reasons" if len(reasons) > MOST_REASONS else ""
    if not n:
        return Finding(FAIL, "scans", f"none can be used: {told}{more}", f"mend them; {NAMED} names them")
    remedy = f"mend them, or leave them out knowingly; {NAMED} names them"
    return Finding(WARN, "scans", f"{n} can be used, {len(excluded)} are left out: {told}{more}", remedy)


def _unreadable(case: Case) -> str:
    """Why a case's files cannot be read, as far as a look at them tells; empty where they can."""
    for path in (case.image, case.bvals):
        if path is not None and not os.access(path, os.R_OK):
            return "a file that may not be read"
        if path is not None and not path.stat().st_size:
            return "an empty file"
    return ""


def unnamed(reason: str) -> str:
    """A reason without the ids of cases."""
    return _CASE.sub("a case", reason)


def check_participants(facts: SiteFacts) -> Finding:
    """Whether there are enough cases of each grade to train, choose and test."""
    try:
        cases = facts.cases.cases
    except (CohortError, SiteError, PolicyError, OSError):
        return Finding(SKIP, "participants", "there are no scans to count")
    # Copies of a scan under two names are found when features are computed: it takes reading every scan.
    scale = SCALES[facts.spec.scale]
    split = split_cases(cases, facts.spec.seed, scale=scale)
    found = describe_split(split, scale)
    if len(split.train) < LEAST_TRAINING_CASES or not split.validation or not split.test:
        least = f"bring in more: {LEAST_TRAINING_CASES} for training, 1 for validation and 1 for the test are the least"
        return Finding(FAIL, "participants", found, least)
    absent = [grade.name.lower() for grade in Severity if not any(_grade(case, scale) is grade for case in split.train)]
    if absent:
        remedy = "nothing, where there are no such patients; the other sites teach that grade"
        return Finding(WARN, "participants", f"{found}; no training case is {' or '.join(absent)}", remedy)
    return Finding(OK, "participants", found)


def describe_split(split: Split, scale: GradingScale) -> str:
    """Numbers of cases by split, and by grade in the order of the grades."""
    parts = []
    for name, cases in zip(("training", "validation", "test"), split, strict=True):
        grades = Counter(_grade(case, scale) for case in cases)
        parts.append(f"{len(cases)} {name} ({'/'.join(str(grades[grade]) for grade in Severity)})")
    return f"{', '.join(parts)} cases by grade {'/'.join(grade.name.lower() for grade in Severity)}"


def _grade(case: Case, scale: GradingScale) -> Severity:
    return scale.grade(case.count or 0)


def check_masks(facts: SiteFacts) -> Finding:
    """How many cases have a lesion mask, where the site names a derivative with them."""
    try:
        folders, cases = facts.folders, facts.cases.cases
    except (CohortError, SiteError, PolicyError, OSError):
        return Finding(SKIP, "lesion masks", "there are no scans that could have one")
    if folders.lesion_masks is None:
        return Finding(OK, "lesion masks", "none are named; the site trains from its counts")
    n = sum(lesion_mask_path(case, folders.data_root, folders.lesion_masks) is not None for case in cases)
    if not n:
        remedy = "name them sub-x_desc-microbleeds_mask.nii.gz, in folders like the data root's; docs/grading.md"
        return Finding(WARN, "lesion masks", f"0 of {len(cases)} cases have one", remedy)
    return Finding(OK, "lesion masks", f"{n} of {len(cases)} cases have one")
