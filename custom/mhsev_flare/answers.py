"""Which answers of a study's sites can be used, and what the result says of the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nvflare.app_common.abstract.fl_model import FLModel

from mhsev_flare.gates import MOST_LOSS, ExpectedUpdate, array_refusal, is_number, table_refusal
from mhsev_flare.protocol import TASK_COMPARE, TASK_SUBMIT_MODEL, Meta
from mhsev_flare.result import NoAnswerError

Shapes = Mapping[str, tuple[int, ...]]


def site_of(answer: FLModel) -> str:
    """Name of the site that answered."""
    return str(answer.meta["client_name"])


def told_cases(result: Mapping[str, Any], split: str) -> dict[str, int]:
    """Most cases of a split by site, as told in the handshake; of a range its end. Without sites that told neither."""
    told: dict[str, int] = {}
    for site, summary in result.get("sites", {}).items():
        cases = summary.get("cases")
        most = _most(cases.get(split)) if isinstance(cases, Mapping) else None
        if most is not None:
            told[site] = most
    return told


def _most(cell: Any) -> int | None:
    """Most cases that a cell of a site's summary can mean: a number, or a range such as ``1-4``."""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return cell
    spanned = re.fullmatch(r"[0-9]{1,7}-([0-9]{1,7})", cell) if isinstance(cell, str) else None
    return int(spanned[1]) if spanned else None


def answer_refusal(task: str, answer: FLModel, shapes: Shapes, told: int | None = None) -> str:
    """Why an answer is not what the task asks for; empty where it is.

    A loss, with a table where models are judged; or a model.

    Args:
        task: name of the task.
        answer: of a site.
        shapes: of the model's weights.
        told: most cases of the split that is judged, by what the site said in the handshake; None where it said none.
    """
    if task == TASK_SUBMIT_MODEL:
        return array_refusal(answer.params or {}, ExpectedUpdate(shapes, ""))
    loss: Any = (answer.metrics or {}).get("loss")
    if not is_number(loss):
        return "a loss that is not a finite number"
    if abs(loss) > MOST_LOSS:
        return f"a loss beyond {MOST_LOSS:g}"
    return "" if task == TASK_COMPARE else table_refusal(answer.meta or {}, told)


def question(task: str, asked: Mapping[str, Any]) -> str:
    """What a question is called in the result: the task, and the split where one is asked for."""
    return f"{task} {asked[Meta.SPLIT]}" if Meta.SPLIT in asked else task


def sites_to_ask(sites: Sequence[str], result: Mapping[str, Any], task: str, asked: Mapping[str, Any]) -> list[str]:
    """Who is asked: all sites, but for calibration sums only those that have answered this task before.

    A site that is gone is waited for as long as a round's policy says. The test waits once more for one that may be
    back; its part of a calibration is not worth that.
    """
    if Meta.TEMPERATURE not in asked:
        return list(sites)
    gone = {site for name, absent in result.get("absent", {}).items() if name.split()[0] == task for site in absent}
    return [site for site in sites if site not in gone]


def note_absent(
    result: dict[str, Any], asked: str, absent: Sequence[str], reasons: Mapping[str, str] | None = None
) -> None:
    """Enter sites without a usable answer under ``absent`` of the result, beside those of earlier questions.

    Args:
        result: of the study; changed.
        asked: name of the :func:`question`.
        absent: sites.
        reasons: why the answer of a site that did answer was refused; the last one stands under ``unusable``.
    """
    by_question = result.setdefault("absent", {})
    by_question[asked] = sorted({*by_question.get(asked, ()), *absent})
    if reasons:
        by_question = result.setdefault("unusable", {})
        by_question[asked] = dict(sorted({**by_question.get(asked, {}), **reasons}.items()))


def usable_answers(
    answers: Sequence[FLModel],
    asked: Sequence[str],
    task: str,
    meta: Mapping[str, Any],
    shapes: Shapes,
    result: dict[str, Any],
    log_error: Callable[[str], None],
    remedy: str,
) -> list[FLModel]:
    """The answers that can be used; every other site is named in the result and in the log.

    Args:
        answers: that came.
        asked: sites.
        task: that was asked.
        meta: what came with the question.
        shapes: of the model's weights.
        result: of the study; changed.
        log_error: writes a line of the server's log.
        remedy: what to do where none can be used, so that no training is lost that was done.

    Raises:
        NoAnswerError: if none can be used.
    """
    told = told_cases(result, str(meta.get(Meta.SPLIT, "test")))
    found = {site_of(a): answer_refusal(task, a, shapes, told.get(site_of(a))) for a in answers}
    reasons = {site: reason for site, reason in found.items() if reason}
    usable = [answer for answer in answers if site_of(answer) not in reasons]
    absent = sorted(set(asked) - {site_of(answer) for answer in usable})
    if absent:
        note_absent(result, question(task, meta), absent, reasons)
        for site in absent:
            log_error(f"{question(task, meta)}: the result is without {site}: {reasons.get(site, 'no answer')}")
    if not usable:
        raise NoAnswerError(f"no site answered {task}; see the sites' logs, then {remedy}")
    return usable
