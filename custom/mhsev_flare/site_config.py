"""A site's own decisions, written into its startup kit: no FLARE, and nothing that leaves the site."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhsev_flare.site_policy import (
    CACHE_ROOT,
    DATA_ROOT,
    LESION_MASKS,
    NEEDED_ENTRIES,
    REQUIRED,
    PolicyError,
    PrivacyDemand,
    SitePolicy,
)
from mhsev_flare.site_policy_file import (
    PRIVACY_FILE,
    default_scope,
    merged,
    policy_filters,
    read_privacy_file,
    stored_policy,
    write_privacy_file,
)

CLIENT_FILE = "fed_client.json"


@dataclass(frozen=True)
class Kit:
    """A site's startup kit.

    Attributes:
        folder: holds ``startup`` and ``local``.
        site: name by which FLARE knows the site.
    """

    folder: Path
    site: str

    @property
    def startup(self) -> Path:
        """What FLARE's provisioning made, certificates among it."""
        return self.folder / "startup"

    @property
    def local(self) -> Path:
        """What the site decides."""
        return self.folder / "local"

    @property
    def privacy_file(self) -> Path:
        """The site's ``privacy.json``."""
        return self.local / PRIVACY_FILE

    @staticmethod
    def at(folder: Path) -> Kit:
        """The kit in ``folder``.

        Raises:
            PolicyError: if it is no site's kit.
        """
        folder = folder.absolute()
        path = folder / "startup" / CLIENT_FILE
        if not path.is_file() or not (folder / "local").is_dir():
            of_server = (folder / "startup" / "fed_server.json").is_file()
            what = "the server's kit" if of_server else "no startup kit"
            raise PolicyError(f"{folder} is {what}; name a site's folder, which holds startup/{CLIENT_FILE} and local")
        try:
            site = json.loads(path.read_text())["client"]["fqsn"]
        except (OSError, ValueError, KeyError, TypeError):
            raise PolicyError(
                f"startup/{CLIENT_FILE} of {folder} does not name its site; ask for the kit anew"
            ) from None
        return Kit(folder, str(site))


@dataclass(frozen=True)
class Changes:
    """What is to be decided anew; None leaves what was decided before, or the default.

    Attributes:
        data_root: absolute folder of the scans.
        cache_root: absolute folder for features.
        lesion_masks: derivative with masks, relative to the data root; empty for none.
        least: see ``SitePolicy``.
        base: see ``SitePolicy``.
        blocked: see ``SitePolicy``; empty to block nothing.
        privacy: rule of ``PrivacyDemand``.
        max_epsilon: see ``PrivacyDemand``.
        max_delta: see ``PrivacyDemand``.
        least_noise: see ``PrivacyDemand``.
    """

    data_root: Path | None = None
    cache_root: Path | None = None
    lesion_masks: str | None = None
    least: int | None = None
    base: int | None = None
    blocked: tuple[str, ...] | None = None
    privacy: str | None = None
    max_epsilon: float | None = None
    max_delta: float | None = None
    least_noise: float | None = None

    def applied(self, policy: SitePolicy) -> SitePolicy:
        """``policy`` with the changes.

        Raises:
            PolicyError: if a value is out of its range, or the folders are not there.
        """
        demand = _given(
            rule=self.privacy, max_epsilon=self.max_epsilon, max_delta=self.max_delta, least_noise=self.least_noise
        )
        changed = _given(
            data_root=None if self.data_root is None else str(self.data_root),
            cache_root=None if self.cache_root is None else str(self.cache_root),
            lesion_masks=self.lesion_masks,
            least=self.least,
            base=self.base,
            blocked=self.blocked,
        )
        new = dataclasses.replace(policy, **changed, privacy=dataclasses.replace(policy.privacy, **demand))
        _refuse_limits_without_effect(new.privacy, demand)
        _refuse_absent_folders(new)
        return new


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _refuse_limits_without_effect(demand: PrivacyDemand, given: Mapping[str, Any]) -> None:
    limits = [f"--{name.replace('_', '-')}" for name in given if name != "rule"]
    if limits and demand.rule != REQUIRED:
        raise PolicyError(
            f"{' and '.join(limits)} would have no effect where privacy is {demand.rule}; add --privacy required, or "
            "leave it out"
        )


def _refuse_absent_folders(policy: SitePolicy) -> None:
    if not policy.data_root:
        raise PolicyError("the kit names no data root yet; name the folder of the scans with --data-root")
    if not Path(policy.data_root).is_dir():
        raise PolicyError(f"the data root {policy.data_root} is not a folder that can be read; make it, or correct it")
    if policy.lesion_masks and not (Path(policy.data_root) / policy.lesion_masks).is_dir():
        raise PolicyError(f"{policy.lesion_masks} is no folder under the data root; correct --lesion-masks")


def configured(kit: Kit) -> SitePolicy | None:
    """The kit's policy; None where it has none.

    Raises:
        PolicyError: if its ``privacy.json`` is malformed.
    """
    return stored_policy(read_privacy_file(kit.privacy_file))


def configure(kit: Kit, changes: Changes) -> tuple[SitePolicy, bool]:
    """Write the kit's policy; what was decided before and is not among the changes stays.

    Returns:
        The policy, and whether the file changed.

    Raises:
        PolicyError: if a value is out of its range, a folder is not there, or ``privacy.json`` is malformed.
        OSError: if it cannot be written.
    """
    stored = read_privacy_file(kit.privacy_file)
    policy = changes.applied(stored_policy(stored) or _written_by_hand(stored))
    return policy, write_privacy_file(kit.privacy_file, merged(stored, policy))


def _written_by_hand(stored: dict[str, Any]) -> SitePolicy:
    """The folders that a scope names which has no policy yet."""
    properties = (default_scope(stored) or {}).get("properties", {})
    root, cache, masks = (properties.get(name) or "" for name in (DATA_ROOT, CACHE_ROOT, LESION_MASKS))
    return SitePolicy(root, cache, masks)


def describe(kit: Kit, policy: SitePolicy) -> str:
    """One fact a line, for the terminal."""
    hidden = f"numbers of cases from 1 to {policy.least - 1} are hidden, those by grade told in steps of {policy.base}"
    facts = {
        "site": kit.site,
        "data root": policy.data_root,
        "cache": policy.cache_root or "derivatives/mhsev/features of the data root",
        "lesion masks": policy.lesion_masks or "none",
        "small numbers": hidden if policy.least else "all numbers of cases may be told",
        "blocked": describe_blocked(policy.blocked),
        "privacy": describe_privacy(policy.privacy),
        "filters": ", ".join(entry["path"].rpartition(".")[2] for entry in policy_filters(policy)),
    }
    return "\n".join(f"{name:<15}{value}" for name, value in facts.items())


def describe_blocked(blocked: Sequence[str]) -> str:
    """The entries in words, and whether a job can run without them."""
    needed = [entry for entry in blocked if entry in NEEDED_ENTRIES]
    return (", ".join(blocked) or "nothing") + (f"; no job can run without {needed[0]}" if needed else "")


def describe_privacy(demand: PrivacyDemand) -> str:
    """The demand in words."""
    if demand.rule == "required":
        return (
            f"required, epsilon {demand.max_epsilon:g} at most over all jobs, delta {demand.max_delta:g} at most, "
            + (f"noise multiplier {demand.least_noise:g} at least" if demand.least_noise else "any noise above 0")
        )
    return {"allowed": "the job decides", "forbidden": "a job must train without it"}[demand.rule]
