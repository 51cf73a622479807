"""The default beside plain averaging under each attack, seed by seed: differences with their intervals, for the page.

Both train on the same sites from the same seed, so most of what one draw of sites differs from another cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from attack_trials import SETUPS, Outcome
from attacks import ATTACKS, NONE
from benchmark_dsd import table
from scipy.stats import t

PLAIN, DEFAULT = "mean", "clip"
EXCLUDED = "nan"
"""Every update of the attackers is refused, by every rule."""
MARGIN = 0.02
"""What the default may lose against plain averaging, in accuracy."""

Outcomes = Mapping[tuple[str, str], Mapping[int, Outcome]]
"""By rule and attack the outcomes by seed, of one setup."""


class Interval(NamedTuple):
    """Mean of paired differences with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def paired_interval(differences: np.ndarray) -> Interval:
    """Student's t interval of ``(n,)`` differences, n of 2 or more; it has no width where all are equal."""
    n = len(differences)
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    mean = float(differences.mean())
    return Interval(mean, mean - half, mean + half)


def verdict(difference: Interval) -> str:
    """What a difference in accuracy says."""
    if difference.low == difference.high == 0:
        return "the same model"
    if difference.low > 0:
        return "better"
    if difference.high < 0:
        return "worse"
    return "equal within two points" if difference.low >= -MARGIN and difference.high <= MARGIN else "not decided"


def difference(found: Outcomes, of: tuple[str, str], less: tuple[str, str], score: str = "accuracy") -> Interval:
    """``of`` less ``less``, each a rule and an attack, over the seeds of both."""
    seeds = sorted(set(found[of]) & set(found[less]))
    return paired_interval(np.array([getattr(found[of][s], score) - getattr(found[less][s], score) for s in seeds]))


def paired_rows(found: Outcomes, attacks: Sequence[str]) -> list[list[str]]:
    """Harm to plain averaging, and what the default changes; what a gate refuses also as a FLARE run meets it."""
    rows = []
    for attack in attacks:
        lines = [(f"`{attack}`", attack)]
        if ATTACKS[attack].gate and attack != EXCLUDED and (DEFAULT, EXCLUDED) in found:
            lines.append((f"`{attack}`, refused by its gate", EXCLUDED))
        for label, met in lines:
            pair = (DEFAULT, met), (PLAIN, attack)
            change = difference(found, *pair)
            harm = "–" if attack == NONE else str(difference(found, (PLAIN, attack), (PLAIN, NONE)))
            rows.append([label, harm, str(change), str(difference(found, *pair, "kappa")), verdict(change)])
    return rows


def paired_table(found: Outcomes, attacks: Sequence[str]) -> list[str]:
    """The table of a setup, in Markdown."""
    header = ["attack", "harm to `mean`, accuracy", "`clip` less `mean`, accuracy", "the same, kappa", "`clip` is"]
    return table(header, paired_rows(found, attacks))


def paired_section(by_setup: Mapping[str, Outcomes]) -> list[str]:
    """The page's part; lines of Markdown, paragraphs not wrapped."""
    n_seeds = len(next(iter(next(iter(by_setup.values())).values())))
    lines = [
        "## The default beside plain averaging, seed by seed",
        "",
        f"""Seeds 1 to {n_seeds}; mean of the paired differences and 95 % interval (Student's t), not adjusted for the
        number of attacks. Harm is what the attack costs plain averaging against its own clean run: where its interval
        holds 0, there is nothing to be won, and no rule can be called better. "Equal within two points": the interval
        holds 0 and stays within {MARGIN:g} of it. What a gate of the aggregator refuses stands there twice: as the rule
        alone meets it, and as a FLARE run does, which is training without the attackers. Kappa may tell more than
        accuracy where grades are far off.""",
        "",
    ]
    for setup, found in by_setup.items():
        title = SETUPS[setup].title
        lines += [f"{title[0].upper()}{title[1:]}:", "", *paired_table(found, list(ATTACKS))]
        lines += [f"- {line}" for line in summary(found, list(ATTACKS))] + [""]
    return lines


def summary(found: Outcomes, attacks: Sequence[str]) -> list[str]:
    """One line a verdict with the attacks in a FLARE run; which do no harm; and against which nothing helps."""
    by_verdict: dict[str, list[str]] = {}
    harmless, open_to = [], []
    for attack in attacks:
        met = EXCLUDED if ATTACKS[attack].gate else attack
        words = verdict(difference(found, (DEFAULT, met), (PLAIN, attack)))
        by_verdict.setdefault(words, []).append(f"`{attack}`")
        harm = difference(found, (PLAIN, attack), (PLAIN, NONE))
        if attack != NONE and harm.high >= 0:
            harmless.append(f"`{attack}`")
        elif attack != NONE and words != "better":
            open_to.append(f"`{attack}`")
    lines = [f"In a FLARE run the default is {words}: {', '.join(names)}." for words, names in by_verdict.items()]
    lines.append(f"No harm to plain averaging is shown of: {', '.join(harmless) or 'none'}.")
    lines.append(f"Harm is shown of, and the default is not shown to be better under: {', '.join(open_to) or 'none'}.")
    return lines
