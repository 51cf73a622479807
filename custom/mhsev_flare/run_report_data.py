"""From the files of a run to the plain data of its report. No scan is opened here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mhsev_flare.run_words import rule_words, weighting_words
from mhsev_monai.metrics import SeverityTable, severity_intervals
from mhsev_monai.report.data import (
    Analyses,
    AttendanceRow,
    Evaluation,
    LocalModels,
    ReportData,
    RoundRow,
    SiteCases,
)

TITLE = "Report of a federated run"


def report_data(
    result: Mapping[str, Any],
    ledger: Sequence[Mapping[str, Any]],
    network: nn.Module | None = None,
    explanation: Mapping[str, Any] | None = None,
    associations: Mapping[str, Any] | None = None,
) -> ReportData:
    """The data of a completed run, without single cases.

    Args:
        result: of result.json.
        ledger: its rounds.
        network: the trained one, for the size of what was exchanged.
        explanation: of explanation.json.
        associations: of associations.json.
    """
    test, seed = result["test"], int(result["seed"])
    tables = [SeverityTable.from_json(entry["table"]) for entry in test["sites"].values()]
    comparison = result.get("comparison")
    return ReportData(
        title=TITLE,
        simulated=False,
        facts=_facts(result),
        scale=result["scale"],
        sites=[_site_cases(site, summary) for site, summary in result["sites"].items()],
        pooled=_evaluation("all sites", test["pooled"], tables, seed),
        per_site=[
            _evaluation(site, entry, [table], seed)
            for (site, entry), table in zip(test["sites"].items(), tables, strict=True)
        ],
        majority=test["majority"]["metrics"],
        local_models=_local_models(comparison, result, seed),
        rounds=[_round(row) for row in ledger],
        # A mean of rounds is not the model of one of them.
        kept_round=None if _is_mean(result) else result["best_round"],
        attendance=[_attendance(site, ledger) for site in result["sites"]],
        analyses=Analyses(
            worst_site=test.get("worst_site"),
            calibration=result.get("calibration"),
            uncertainty=result.get("uncertainty"),
            subgroups=result.get("subgroups"),
            matrix=_matrix((comparison or {}).get("matrix"), seed),
            paired=result.get("paired"),
            personalised=_further(result.get("personalised"), seed),
            explanation=explanation,
            associations=associations,
            software=result.get("reports") or {},
            policy=_policy(result, ledger, network),
        ),
        notes=_notes(result),
    )


def _evaluation(name: str, entry: Mapping[str, Any], tables: Sequence[SeverityTable], seed: int) -> Evaluation:
    intervals = entry.get("intervals")
    # Results of versions that did not write intervals: those that follow from the confusion tables.
    made = severity_intervals(tables, seed) if intervals is None else intervals
    return Evaluation(name, entry["metrics"], entry["table"], made)


def _facts(result: Mapping[str, Any]) -> dict[str, str | int | float | None]:
    versions, digest = result["versions"], result["model"].get("sha256", "")
    return {
        "job": result["job"],
        "rounds": result["num_rounds"],
        "round kept": "none, the mean of all" if _is_mean(result) else result["best_round"],
        **(_average(result["average"]) if "average" in result else {}),
        "weighting of sites": weighting_words(result["weighting"]),
        "rule for updates": rule_words(result["rule"]),
        "grading scale": result["scale"],
        "features": len(result["features"]["names"]),
        "seed": result["seed"],
        "mhsev": versions["mhsev"],
        "NVIDIA FLARE": versions["nvflare"],
        "PyTorch": versions["torch"],
        "schema of the result": result["schema"],
        **({"model SHA-256": digest} if digest else {"encrypted": "the model is at the sites alone"}),
    }


def _is_mean(result: Mapping[str, Any]) -> bool:
    return bool((result.get("average") or {}).get("kept"))


def _average(average: Mapping[str, Any] | None) -> dict[str, str]:
    if average is None:
        return {"mean of the rounds' models": "not judged: no site answered"}
    whether = "kept in place of one round's" if average["kept"] else "not kept"
    judged = average["validation"]
    values = {"loss": judged["loss"], "quadratic kappa": judged["quadratic_kappa"]}
    told = ", ".join(f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in values.items())
    return {"mean of the rounds' models": f"{whether}; validation {told}"}


def _policy(
    result: Mapping[str, Any], ledger: Sequence[Mapping[str, Any]], network: nn.Module | None
) -> dict[str, str | int | float | None]:
    taken = sum(len(row["sites"]) for row in ledger)
    policy: dict[str, str | int | float | None] = {
        "sites": f"{len(result['sites'])} took part, {len(result['refused'])} refused or were refused",
        "updates in the average": taken,
        "updates refused": sum(len(row["refused"]) for row in ledger),
        "answers missing": sum(len(row["absent"]) for row in ledger),
        "rule for updates": rule_words(result["rule"]),
        "weighting of sites": weighting_words(result["weighting"]),
        "encryption of updates": "homomorphic" if result.get("encrypted") else "none beside that of the connection",
    }
    unusable = result.get("unusable", {}).values()
    if unusable:
        told = (f"{site}: {reason}" for by_site in unusable for site, reason in by_site.items())
        policy["answers after training that were refused"] = "; ".join(dict.fromkeys(told))
    if "epsilon" in result:
        policy["differential privacy, epsilon spent"] = _epsilon(result["epsilon"])
    # Ciphertexts are many times as large as the weights in them.
    if network is not None and not result.get("encrypted"):
        weights = list(network.state_dict().values())
        size, n = sum(each.numel() * each.element_size() for each in weights), sum(each.numel() for each in weights)
        policy["weights, each way, a site and round"] = f"{size / 1000:.1f} kB ({n} numbers)"
        policy["weights in all, unpacked"] = f"{2 * taken * size / 1e6:.1f} MB both ways together, without evaluation"
    return policy


def _epsilon(spent: Any) -> str:
    return ", ".join(f"{site} {value}" for site, value in spent.items()) if isinstance(spent, Mapping) else str(spent)


def _local_models(comparison: Mapping[str, Any] | None, result: Mapping[str, Any], seed: int) -> LocalModels | None:
    """The comparison with its intervals, drawn within each site, for all models from the same sites' cases."""
    if comparison is None:
        return None
    models, sites = comparison["site_models"], comparison.get("sites")
    rows = comparison.get("matrix") or {}
    own = {site: entry["metrics"]["balanced_accuracy"] for site, entry in models.items()}
    intervals = {o: _balanced_interval(_own_tables(rows.get(o), sites, entry), seed) for o, entry in models.items()}
    tested = _tables(result["test"]["sites"], sites)
    return LocalModels(
        own,
        comparison["global_balanced_accuracy"],
        cases=_cases_of(sites, result["sites"]),
        intervals=intervals,
        global_interval=_balanced_interval(tested, seed),
    )


def _own_tables(
    row: Mapping[str, Any] | None, sites: Sequence[str] | None, pooled: Mapping[str, Any]
) -> list[SeverityTable]:
    """A model's tables by site, where the result has them all; else the one of all sites' cases together."""
    told = row or {}
    has_all = bool(told) and all(isinstance(e, Mapping) and e.get("table") for e in told.values())
    return _tables(told, sites) if has_all else [SeverityTable.from_json(pooled["table"])]


def _tables(entries: Mapping[str, Mapping[str, Any]], sites: Sequence[str] | None) -> list[SeverityTable]:
    """Of these sites; of all where the result is of a version that did not name them."""
    return [SeverityTable.from_json(e["table"]) for site, e in entries.items() if sites is None or site in sites]


def _cases_of(compared: Sequence[str] | None, all_sites: Mapping[str, Any]) -> str:
    if compared is None or set(compared) == set(all_sites):
        return "the test cases of all sites"
    return f"the test cases of {', '.join(compared)}, the sites that judged every model" if compared else "no test case"


def _balanced_interval(tables: Sequence[SeverityTable], seed: int) -> tuple[float, float] | None:
    return severity_intervals(tables, seed)["balanced_accuracy"]


def _matrix(matrix: Mapping[str, Any] | None, seed: int) -> dict[str, dict[str, Any]] | None:
    """The same, with an interval of the balanced accuracy where there is a table."""
    if matrix is None:
        return None
    return {owner: {site: _with_interval(entry, seed) for site, entry in row.items()} for owner, row in matrix.items()}


def _further(entries: Mapping[str, Any] | None, seed: int) -> dict[str, Any] | None:
    return None if entries is None else {site: _with_interval(entry, seed) for site, entry in entries.items()}


def _with_interval(entry: Any, seed: int) -> Any:
    if not isinstance(entry, Mapping) or not entry.get("table"):
        return entry
    interval = _balanced_interval([SeverityTable.from_json(entry["table"])], seed)
    return {**entry, "intervals": {"balanced_accuracy": interval}}


def _round(row: Mapping[str, Any]) -> RoundRow:
    return RoundRow(
        number=row["round"],
        samples={site: entry["n_samples"] for site, entry in row["sites"].items()},
        rejected=row["refused"],
        quadratic_kappa=row["validation"]["quadratic_kappa"],
        loss=row["validation"]["loss"],
    )


def _site_cases(site: str, summary: Mapping[str, Any]) -> SiteCases:
    return SiteCases(site, summary["grades"], summary["cases"], summary["excluded"])


def _attendance(site: str, ledger: Sequence[Mapping[str, Any]]) -> AttendanceRow:
    trained = [row for row in ledger if row["anomalies"] or row["absent"]]
    own = [row["anomalies"][site] for row in trained if site in row["anomalies"]]

    def told(name: str) -> list[float]:
        return [entry[name] for entry in own if entry.get(name) is not None]

    shares = [entry["share"] for entry in own if entry["accepted"] and entry.get("share") is not None]
    return AttendanceRow(
        site=site,
        taken=sum(entry["accepted"] for entry in own),
        refused=sum(not entry["accepted"] for entry in own),
        absent=sum(site in row["absent"] for row in trained),
        clipped=sum(bool(entry.get("clipped")) for entry in own),
        largest_ratio=max(told("norm_ratio"), default=None),
        least_cosine=min(told("cosine_to_median"), default=None),
        mean_share=sum(shares) / len(shares) if shares else None,
    )


def _notes(result: Mapping[str, Any]) -> list[str]:
    notes = [
        f"{site}: {summary['excluded']} cases were left out; the reasons are in the site's own log"
        for site, summary in result["sites"].items()
        if summary["excluded"]  # a number, or a range in its place
    ]
    notes += [f"{site} did not take part: {reason}" for site, reason in result["refused"].items()]
    if "resumed" in result:
        notes.append(f"the run went on from round {result['resumed']['round']} of one that had ended before its end")
        notes += [
            f"{site} took part before, and was not there when it went on"
            for site in result["resumed"].get("without", [])
        ]
    if "converged_at_round" in result:
        notes.append(f"training ended at round {result['converged_at_round']}, since the validation loss fell no more")
    hidden = [s for s, told in result["sites"].items() if not all(isinstance(n, int) for n in _numbers(told["grades"]))]
    notes += [f"{site} hides small numbers of cases, so some of its numbers by grade are not shown" for site in hidden]
    return notes


def _numbers(grades: Mapping[str, Sequence[Any]]) -> list[Any]:
    return [number for counts in grades.values() for number in counts]
