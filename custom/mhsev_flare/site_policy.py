"""What a hospital lets happen with its scans, whatever a job asks: its policy as values, and the rules. No FLARE.

The policy lies in the site's ``privacy.json`` (see ``site_policy_file``), which no job can change. Filters enforce what
may leave, for any job; :meth:`SitePolicy.check_job` and :meth:`SitePolicy.check_cost`, which the executor asks, enforce
how it is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from mhsev_flare.analysis.protocol import BLOCKABLE_ENTRIES as ANALYSIS_ENTRIES
from mhsev_flare.protocol import Meta
from mhsev_flare.site_data import SiteError
from mhsev_flare.small_cells import FEWEST_TOLD
from mhsev_monai.private_training import PrivacyParameters

ALLOWED, REQUIRED, FORBIDDEN = "allowed", "required", "forbidden"
PRIVACY_RULES = (ALLOWED, REQUIRED, FORBIDDEN)

DATA_ROOT, CACHE_ROOT, LESION_MASKS, POLICY = (
    "mhsev_data_root",
    "mhsev_cache_root",
    "mhsev_lesion_masks",
    "mhsev_policy",
)
"""Properties of the privacy scope."""

OPTIONAL_ENTRIES = (
    *(Meta.TRAIN_LOSS, Meta.EPSILON, "NUM_STEPS_CURRENT_ROUND", Meta.CONTROL_DELTAS),
    *(Meta.CALIBRATION_SUMS, Meta.UNCERTAINTY, Meta.SUBGROUPS, Meta.PAIRS),
)
"""Entries without which a job runs: the result is without this site's part of them, and without control variates'
changes SCAFFOLD alone is refused by the server."""

NEEDED_ENTRIES: Mapping[str, str] = MappingProxyType(
    {
        Meta.VALIDATION_LOSS: "validation loss",
        Meta.TABLE: "validation table",
        Meta.SITE_SUMMARY: "numbers of cases by split and grade",
        Meta.N_SAMPLES: "number of training cases",
        Meta.REPORT: "versions",
    }
)
"""Entries without which no site can take part, with what they are in the words of a refusal."""

BLOCKABLE = (*OPTIONAL_ENTRIES, *NEEDED_ENTRIES, *ANALYSIS_ENTRIES)


class PolicyError(ValueError):
    """A policy that is none, or cannot be read: for the site's own administrator."""


@dataclass(frozen=True)
class PrivacyDemand:
    """What a site demands of differentially private training.

    Attributes:
        rule: ``allowed``: the job decides; ``required``: a job must train with it, within the limits below;
            ``forbidden``: a job must train without it.
        max_epsilon: the most that all jobs together may spend on this site's cases, above 0, 1000 at most; needed where
            privacy is required, since epsilon without a limit promises nothing.
        max_delta: the largest delta of a job, between 0 and 1.
        least_noise: the smallest noise multiplier of a job, 0 to 1000.
    """

    rule: str = ALLOWED
    max_epsilon: float | None = None
    max_delta: float = 1e-3
    least_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in PRIVACY_RULES:
            raise PolicyError(f"privacy must be one of {', '.join(PRIVACY_RULES)}, got {self.rule!r}")
        if self.rule == REQUIRED and self.max_epsilon is None:
            raise PolicyError("privacy that is required needs max_epsilon, the most that may be spent, such as 8")
        if self.max_epsilon is not None and not (_is_number(self.max_epsilon) and 0 < self.max_epsilon <= 1000):
            raise PolicyError(f"max_epsilon must be a number above 0, 1000 at most, got {self.max_epsilon}")
        if not (_is_number(self.max_delta) and 0 < self.max_delta < 1):
            raise PolicyError(f"max_delta must be between 0 and 1, got {self.max_delta}")
        if not (_is_number(self.least_noise) and 0 <= self.least_noise <= 1000):
            raise PolicyError(f"least_noise must be a number from 0 to 1000, got {self.least_noise}")


@dataclass(frozen=True)
class SitePolicy:
    """One site's decisions.

    Attributes:
        data_root: absolute folder of the scans; empty where another place names it (see ``find_site_folders``).
        cache_root: absolute folder for features and the privacy account; empty: below the data root.
        lesion_masks: derivative with masks of microbleeds, relative to the data root; empty: none.
        least: the smallest number of cases above 0 that may be told, 5 or more; 0: all may be told.
        base: numbers by grade are rounded to multiples of it, 1 or more.
        blocked: entries of messages that never leave, of ``BLOCKABLE``.
        privacy: demands on training.
    """

    data_root: str = ""
    cache_root: str = ""
    lesion_masks: str = ""
    least: int = FEWEST_TOLD
    base: int = 5
    blocked: tuple[str, ...] = ()
    privacy: PrivacyDemand = field(default_factory=PrivacyDemand)

    def __post_init__(self) -> None:
        for name in ("data_root", "cache_root"):
            value = getattr(self, name)
            if not isinstance(value, str) or (value and not PurePosixPath(value).is_absolute()):
                # FLARE changes its working folder, so a relative path would mean another folder in each process.
                raise PolicyError(f"{name} must be an absolute path, got {value!r}")
        if not isinstance(self.lesion_masks, str) or PurePosixPath(self.lesion_masks).is_absolute():
            raise PolicyError(f"lesion_masks must be relative to the data root, got {self.lesion_masks!r}")
        if not _is_whole(self.least) or not (self.least == 0 or self.least >= FEWEST_TOLD):
            raise PolicyError(f"least must be 0 (off), or {FEWEST_TOLD} or more, got {self.least!r}")
        if not _is_whole(self.base) or self.base < 1:
            raise PolicyError(f"base must be 1 or more, got {self.base!r}")
        unknown = sorted(set(self.blocked) - set(BLOCKABLE))
        if unknown:
            raise PolicyError(f"there is no entry {', '.join(unknown)} to block; there are {', '.join(BLOCKABLE)}")

    def properties(self) -> dict[str, Any]:
        """What is written into the privacy scope's properties."""
        paths = {DATA_ROOT: self.data_root, CACHE_ROOT: self.cache_root, LESION_MASKS: self.lesion_masks}
        decided = {
            "least": self.least,
            "base": self.base,
            "blocked": list(self.blocked),
            "privacy": asdict(self.privacy),
        }
        return {**{name: path for name, path in paths.items() if path}, POLICY: decided}

    @staticmethod
    def from_properties(properties: Mapping[str, Any]) -> SitePolicy:
        """The policy that a scope's properties hold.

        Raises:
            PolicyError: if they hold none, or what they hold is none.
        """
        decided = properties.get(POLICY)
        if not isinstance(decided, dict) or set(decided) != {"least", "base", "blocked", "privacy"}:
            raise PolicyError(f"{POLICY} must hold least, base, blocked and privacy; write it with mhsev site-config")
        try:
            privacy = PrivacyDemand(**decided["privacy"])
            blocked = tuple(map(str, decided["blocked"]))
        except TypeError:
            raise PolicyError(f"privacy or blocked of {POLICY} is malformed; write it with mhsev site-config") from None
        return SitePolicy(
            data_root=properties.get(DATA_ROOT) or "",
            cache_root=properties.get(CACHE_ROOT) or "",
            lesion_masks=properties.get(LESION_MASKS) or "",
            least=decided["least"],
            base=decided["base"],
            blocked=blocked,
            privacy=privacy,
        )

    def check_job(self, privacy: PrivacyParameters | None) -> None:
        """Refuse a job that trains otherwise than this site allows, or needs what it does not tell.

        Raises:
            SiteError: with the reason, which may leave the site.
        """
        withheld = [what for entry, what in NEEDED_ENTRIES.items() if entry in self.blocked]
        if withheld:
            raise SiteError(
                f"the policy of this site withholds its {withheld[0]}, without which no job can run; take it out of "
                "the blocked entries with mhsev site-config, or leave the site out"
            )
        demand = self.privacy
        if demand.rule == FORBIDDEN and privacy is not None:
            raise SiteError("the policy of this site forbids training with differential privacy; send the job without")
        if demand.rule != REQUIRED:
            return
        if privacy is None:
            raise SiteError(
                "the policy of this site requires differential privacy and the job trains without; send a job with "
                f"privacy, of an epsilon of {demand.max_epsilon:.2f} at most"
            )
        if privacy.noise_multiplier < demand.least_noise or privacy.noise_multiplier == 0:
            raise SiteError(
                f"the policy of this site requires a noise multiplier of {demand.least_noise:.2f} at least, above 0, "
                f"and the job has {privacy.noise_multiplier:.2f}; send a job with more noise"
            )
        if privacy.delta > demand.max_delta:
            raise SiteError(
                f"the policy of this site allows a delta of {demand.max_delta:.4f} at most and the job has "
                f"{privacy.delta:.4f}; send a job with a smaller one"
            )

    def check_cost(self, spent: float) -> None:
        """Refuse training after which all jobs together would have spent ``spent`` on this site's cases.

        Raises:
            SiteError: if that is more than the site allows.
        """
        most = self.privacy.max_epsilon
        if self.privacy.rule == REQUIRED and most is not None and not spent <= most:
            cost = f"{spent:.2f}" if spent < 1e5 else "more than 99999"
            raise SiteError(
                f"with this job an epsilon of {cost} would be spent on the cases of this site, where its policy allows "
                f"{most:.2f} at most; send a job with more noise, fewer rounds or fewer epochs"
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
