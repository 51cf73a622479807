"""The attacks' measurements as a page; every sentence that depends on numbers is made of them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from attack_trials import SETUPS, Outcome, attack_job
from attacks import ATTACKS, NONE
from attacks_paired import EXCLUDED, PLAIN, Outcomes, paired_section
from benchmark_dsd import table
from simulated_sites import Population

from mhsev_flare.combination import CLIP, Combination
from mhsev_monai.severity import Severity

POINT = 0.01
LOST = 0.05
"""Of accuracy below the best clean run: more than this counts as harm."""


@dataclass(frozen=True)
class Measured:
    """One training; ``seconds`` of the processor."""

    setup: str
    rule: str
    attack: str
    seed: int
    outcome: Outcome
    seconds: float


@dataclass(frozen=True)
class Report:
    """What the page is made of.

    Attributes:
        mix: ``(n_seeds, 4)`` shares of grades among the judged cases by setup.
        tried: names of rows by the parameter that they vary.
        tried_in: the setup in which they were.
        tried_on: the attacks.
        pairs: outcomes of plain averaging and the default by setup, over more seeds.
        n_trainings: of the page.
        n_ended_early: of these, since a round had too few updates left.
    """

    command: str
    versions: Mapping[str, str]
    results: Sequence[Measured]
    mix: Mapping[str, np.ndarray]
    tried: Mapping[str, Sequence[str]]
    tried_in: str
    tried_on: Sequence[str]
    pairs: Mapping[str, Outcomes]
    n_trainings: int
    n_ended_early: int

    @cached_property
    def _found(self) -> dict[tuple[str, str, str], list[Measured]]:
        found: dict[tuple[str, str, str], list[Measured]] = {}
        for result in sorted(self.results, key=lambda r: r.seed):
            found.setdefault((result.setup, result.rule, result.attack), []).append(result)
        return found

    @property
    def n_seeds(self) -> int:
        """Seeds of every number."""
        return len({result.seed for result in self.results})

    def values(self, setup: str, rule: str, attack: str, score: str = "accuracy") -> np.ndarray:
        """``(n_seeds,)`` of a score, which is an attribute of ``Outcome``."""
        return np.array([getattr(r.outcome, score) for r in self._found[setup, rule, attack]], dtype=np.float64)

    def rules(self, setup: str) -> list[str]:
        """Of the table, in its order."""
        return list(dict.fromkeys(r for s, r, a in self._found if s == setup and a == "zero"))

    def n_stopped(self, setup: str, rule: str, attack: str) -> int:
        """Trainings that ended early, since too few updates were left."""
        return sum(bool(r.outcome.stopped) for r in self._found[setup, rule, attack])

    def difference(self, setup: str, attack: str, rule: str = CLIP, score: str = "accuracy") -> np.ndarray:
        """``(n_seeds,)`` of ``rule`` less plain averaging, seed by seed."""
        return self.values(setup, rule, attack, score) - self.values(setup, PLAIN, attack, score)


def _wrapped(text: str, indent: str = "") -> str:
    """One paragraph, or one entry of a list with its ``indent``."""
    return textwrap.fill(
        " ".join(text.split()), 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _filled(line: str) -> str:
    """A line of Markdown that may be a long paragraph or entry; tables and headings stay."""
    return line if line.startswith(("|", "#")) else _wrapped(line, "  " if line.startswith("- ") else "")


def render_page(report: Report) -> str:
    """Markdown."""
    paired = "\n".join(_filled(line) for line in paired_section(report.pairs)).rstrip()
    setups = (_setup(report, name) for name in SETUPS)
    parts = [_introduction(report), _attack_table(), paired, *setups, _tried(report)]
    return "\n\n".join(parts) + "\n"


def _introduction(report: Report) -> str:
    own, job = Population(), attack_job(Combination(), 1)
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    sizes = " and ".join(dict.fromkeys("/".join(map(str, s.sizes)) for s in SETUPS.values()))
    made = f"""`{report.command}` with {versions}; {report.n_trainings} trainings of
    {np.mean([r.seconds for r in report.results]):.1f} s of one processor on average, seeds 1 to
    {report.n_seeds} for all rules. In {report.n_ended_early} of them a round had too few updates left: training ends
    there, as a study does, and the best model of the rounds before is judged."""
    data = f"""No scan is behind these numbers. A simulated case is {own.n_features} features. Of these
    {own.n_telling} are log(1 + count) plus Gaussian noise of {own.noise:g}, and the others are the noise alone.
    Each scanner adds an offset to each feature (standard deviation {own.shift:g} over sites) and has a gain (log
    deviation {own.gain:g}). Counts are lognormal with median {own.median_count:g} and log deviation {own.spread:g},
    rounded. The sites' log medians lie evenly from -{own.skew:g} to +{own.skew:g} around that, and the seed says
    which site has which. Sizes are {sizes} cases, a fifth of them for validation. {own.n_test} further cases of
    each honest site are for the test. The job is `dsd_mlp_literal` with {job.network.hidden_features[0]} hidden
    units, {job.num_rounds} rounds of {job.epochs} epochs, learning rate {job.learning_rate:g} and batches of
    {job.batch_size}. The seed draws the sites and trains. Numbers are means and standard deviations over the seeds,
    which are mostly those between one draw of sites and another; rules are compared seed by seed."""
    return "\n\n".join(["# Attacks and rules, measured", _wrapped(made), _wrapped(data), _wrapped(_RULES_TEXT)])


_RULES_TEXT = """`mean` is plain federated averaging with no more than the check that values are finite: no cap on
the sites' cases. `clip` is the default of the jobs, with all its parameters. The others are given the number of
attackers that there are, and refuse beside the others what `clip` refuses too. A rule that cannot bear the number
is not in the table, nor is trimming of one of three, which leaves the median. The kept model is that of the lowest
validation loss, as in a study: of the sites whose update was not refused in that round, attackers with their own
cases, poisoned where the attack poisons; the last aggregate, with which no update comes, is judged by all sites. So a
model destroyed in the first round is the untrained one."""

_GATES_TEXT = """These numbers are made by `federate`, in which only the check of finite values runs before the rule.
In a FLARE run `SeverityAggregator` refuses by name what the last column says, whatever the rule; from then on the
row is that of `nan`. A number of cases is compared with the handshake's: who already lied there is not refused, and
counts for at most 3 times the median of all sites, as in these tables; only in the column `mean` nothing caps it. A
late update whose sender forges the round's marks is refused only if it was sent before."""

_LIMITS_TEXT = """With three sites no rule can tell a liar from an honest site that is unlike the other two: both
are one against two. What is repaired is what no honest training sends: values that are not finite, great length, a
direction against both others. A flipped label, a backdoor or a lie inside the spread of the honest updates is a
training like another, and where the attacker is the largest site, weights by cases side with it. Under the default
a refused site's patients are lost to the model, which can cost more than a weak lie does. What is refused or odd is
in the ledger of each round, for people to ask the site about."""


def _attack_table() -> str:
    rows = [[f"`{name}`", attack.note, _gate(attack.gate)] for name, attack in ATTACKS.items()]
    header = ["attack", "what arrives", "refused by a gate of the aggregator"]
    return "\n".join(["## Attacks", "", _wrapped(_GATES_TEXT), "", *table(header, rows)]).rstrip()


def _gate(words: str) -> str:
    return f'"... {words} ..."' if words else "no"


def _setup(report: Report, setup: str) -> str:
    who, shares = SETUPS[setup], report.mix[setup].mean(axis=0)
    mix = ", ".join(f"{grade.label} {share:.2f}" for grade, share in zip(Severity, shares, strict=True))
    clean, longer = (report.values(setup, rule, NONE).mean() for rule in (PLAIN, f"{PLAIN}, longer"))
    rules = report.rules(setup)
    return "\n".join(
        [
            f"## {who.title[0].upper()}{who.title[1:]}",
            "",
            _wrapped(
                f"Sizes {', '.join(map(str, who.sizes))}; attackers {', '.join(who.attackers)}. Judged cases: {mix}. "
                f"The most frequent grade is that of {report.mix[setup].max(axis=1).mean():.3f}, mean over the seeds. "
                f"Clean plain averaging reaches {clean:.3f}, and {longer:.3f} with three times the rounds."
            ),
            "",
            "Accuracy:",
            "",
            *_scores(report, setup, rules, "accuracy"),
            "Quadratic kappa:",
            "",
            *_scores(report, setup, rules, "kappa"),
            "Refused by `clip`, and answers `severe` to cases that are less and bear the backdoor's mark:",
            "",
            *_refused(report, setup),
            *_sentences(report, setup, rules),
        ]
    )


def _scores(report: Report, setup: str, rules: Sequence[str], score: str) -> list[str]:
    rows = []
    for attack in ATTACKS:
        found = [report.values(setup, rule, attack, score) for rule in rules]
        rows.append([f"`{attack}`", *(_cell(values) for values in found)])
    attacked = [[report.values(setup, rule, a, score).mean() for a in ATTACKS if a != NONE] for rule in rules]
    rows.append(["mean of the attacks", *(f"{np.mean(values):.3f}" for values in attacked)])
    rows.append(["worst attack", *(f"{np.min(values):.3f}" for values in attacked)])
    return table(["attack", *(f"`{rule}`" for rule in rules)], rows)


def _cell(values: np.ndarray) -> str:
    deviation = values.std(ddof=1) if len(values) > 1 else np.nan
    return f"{values.mean():.3f} ± {deviation:.3f}"


def _refused(report: Report, setup: str) -> list[str]:
    rows = []
    for attack in ATTACKS:
        lies, honest = (report.values(setup, CLIP, attack, s).mean() for s in ("lies_refused", "honest_refused"))
        fooled = (f"{report.values(setup, rule, attack, 'backdoor').mean():.3f}" for rule in (PLAIN, CLIP))
        rows.append([f"`{attack}`", "–" if np.isnan(lies) else f"{lies:.2f}", f"{honest:.3f}", *fooled])
    header = ["attack", "lies refused", "honest updates refused", "marked called severe, `mean`", "the same, `clip`"]
    return table(header, rows)


def _sentences(report: Report, setup: str, rules: Sequence[str]) -> list[str]:
    verdicts: dict[str, list[str]] = {}
    for attack in ATTACKS:
        difference = report.difference(setup, attack)
        words = f"`{attack}` ({difference.mean():+.3f})" if difference.any() else f"`{attack}`"
        verdicts.setdefault(_verdict(difference), []).append(words)
    lines = [f"- `clip` against `mean`, accuracy: {words}: {', '.join(names)}." for words, names in verdicts.items()]
    lines += [_ceiling(report, setup), _hopeless(report, setup, rules), _ranking(report, setup, rules)]
    costs = {rule: report.difference(setup, NONE, rule).mean() for rule in rules if rule not in (PLAIN, CLIP)}
    told = ", ".join(f"`{rule}` {value:+.3f}" for rule, value in costs.items())
    lines.append(f"- What the other rules change where nobody lies, in accuracy against `mean`: {told}.")
    return [_wrapped(line, "  ") for line in lines]


def _verdict(difference: np.ndarray) -> str:
    if not difference.any():
        return "equal in every seed"
    if abs(difference.mean()) <= POINT or difference.min() <= 0 <= difference.max():
        return "a point or less, or not the same sign in all seeds"
    return "higher in every seed" if difference.mean() > 0 else "lower in every seed"


def _ceiling(report: Report, setup: str) -> str:
    without = report.values(setup, CLIP, EXCLUDED).mean()
    below = {attack: report.values(setup, CLIP, attack).mean() - without for attack in ATTACKS}
    worse = [f"`{attack}` ({value:+.3f})" for attack, value in below.items() if value < -2 * POINT]
    return (
        f"- What refusing can win is training without the attackers, the row `{EXCLUDED}` ({without:.3f} with `clip`). "
        f"Attacks that leave `clip` more than two points below that: {', '.join(worse) or 'none'}."
    )


def _hopeless(report: Report, setup: str, rules: Sequence[str]) -> str:
    found = {attack: {rule: report.values(setup, rule, attack).mean() for rule in rules} for attack in ATTACKS}
    best = {attack: max(values, key=lambda rule: values[rule]) for attack, values in found.items()}
    bar = found[NONE][best[NONE]]
    lost = [f"`{a}` ({v[best[a]]:.3f} at best)" for a, v in found.items() if v[best[a]] < bar - LOST]
    return (
        f"- Attacks under which no rule comes within {LOST * 100:.0f} points of the best clean run ({bar:.3f}): "
        f"{', '.join(lost) or 'none'}. {len(set(best.values()))} different rules are best under one attack or another, "
        "and nobody knows the attack beforehand."
    )


def _ranking(report: Report, setup: str, rules: Sequence[str]) -> str:
    attacked = {rule: np.array([report.values(setup, rule, a).mean() for a in ATTACKS if a != NONE]) for rule in rules}
    mean, worst = (max(rules, key=lambda rule: measure(attacked[rule])) for measure in (np.mean, np.min))
    return (
        f"- Highest on the mean of the attacks: `{mean}` ({attacked[mean].mean():.3f}); under its worst attack: "
        f"`{worst}` ({attacked[worst].min():.3f}). `clip`: {attacked[CLIP].mean():.3f} and {attacked[CLIP].min():.3f}."
    )


def _tried(report: Report) -> str:
    rows = []
    for parameter, names in report.tried.items():
        default = f"{parameter} {getattr(Combination(), parameter):g}"
        for name in names:
            rule = CLIP if name == default else name
            found = [report.values(report.tried_in, rule, attack) for attack in report.tried_on]
            honest = report.values(report.tried_in, rule, NONE, "honest_refused").mean()
            label = f"{name} (default)" if name == default else name
            stopped = sum(report.n_stopped(report.tried_in, rule, attack) for attack in report.tried_on)
            rows.append([label, *(f"{values.mean():.3f}" for values in found), f"{honest:.3f}", stopped])
    header = ["`clip` with", *(f"`{attack}`" for attack in report.tried_on), "honest refused, `none`", "stopped"]
    return "\n".join(
        [
            "## Other parameters of `clip`",
            "",
            _wrapped(
                f"Accuracy, {SETUPS[report.tried_in].title}. An opposition of 1 refuses nobody for its direction. The "
                "last column counts trainings that ended early since a round had no update left, as each site opposed "
                f"the others. There are {report.n_seeds} trainings for each attack."
            ),
            "",
            *table(header, rows),
            "## What no rule can know",
            "",
            _wrapped(_LIMITS_TEXT),
        ]
    )
