"""One finding of a check, and how it is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OK, WARN, FAIL, SKIP = "ok", "warn", "FAIL", "skip"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        status: ``ok``; ``warn``: the site can take part, but should know; ``FAIL``: it cannot, or should not;
            ``skip``: not checked.
        check: name of the check.
        found: what there is, in one sentence.
        remedy: what to do; empty where there is nothing to do.
    """

    status: str
    check: str
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Plain values, for a line of JSON."""
        return asdict(self)


def as_line(finding: Finding) -> str:
    """The finding as a line of a terminal."""
    remedy = f"  -> {finding.remedy}" if finding.remedy else ""
    return f"{finding.status:<6}{finding.check:<16}{finding.found}{remedy}"
