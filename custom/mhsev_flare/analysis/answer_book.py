"""How often a site has answered in a job, on its disk: FLARE may start a new process for each task. No FLARE here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhsev_flare.analysis.protocol import ANSWERS_A_JOB
from mhsev_flare.site_data import SiteError


@dataclass(frozen=True)
class AnswerBook:
    """Counts answers of one job at one site.

    Attributes:
        path: JSON file in the job's folder at the site.
    """

    path: Path

    def take(self, task: str, question: str) -> None:
        """Count an answer that is about to be given.

        Args:
            task: that is answered.
            question: digest of what must be the same in all questions of the job, such as variables and grades: tables
                of two designs would differ by few cases.

        Raises:
            SiteError: if the site answered as often as it does in a job, or was asked something else before.
        """
        stored = self._read()
        if stored.get("question", question) != question:
            raise SiteError("the question changed during the job, and is not answered; send another job")
        counts: dict[str, int] = stored.get("answers", {})
        tasks = next(group for group in ANSWERS_A_JOB if task in group)
        if sum(counts.get(name, 0) for name in tasks) >= ANSWERS_A_JOB[tasks]:
            raise SiteError(f"this site answers {ANSWERS_A_JOB[tasks]} times at most in a job, and did so already")
        counts[task] = counts.get(task, 0) + 1
        self._write({"question": question, "answers": counts})

    def _read(self) -> dict[str, Any]:
        try:
            stored = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SiteError("the count of answers of this job cannot be read; send another job") from error
        if not isinstance(stored, dict):
            raise SiteError("the count of answers of this job is damaged; send another job")
        return stored

    def _write(self, content: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content))
        temporary.replace(self.path)
