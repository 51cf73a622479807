"""Sites of an analysis: BIDS roots whose scans nobody opens, and FLARE's controller and executors in one process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.filter import ContentBlockedException, Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

from mhsev_flare.analysis.analysis_controller import AnalysisController
from mhsev_flare.payload_guard import PayloadGuard
from mhsev_flare.payload_preview import PreviewEngine
from mhsev_flare.site import SITE_FILE, SiteFolders, load_site_data
from mhsev_monai.cases import read_cases
from mhsev_monai.clinical_inputs import ClinicalInputs
from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.subject import draw_record
from mhsev_monai.cohort.tables import Participant, participants_table
from mhsev_monai.model_file import load_model, save_model
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.shapley_background import common_background
from mhsev_monai.shapley_explain import Effort, explain
from mhsev_monai.shapley_groups import feature_groups

CANARY = "DOE^JANE_19500101"
COLUMNS = ("age", "sex", "hypertension", "prior_stroke")


def make_hospitals(folder: Path, sizes: Sequence[int], seed: int = 1) -> Path:
    """One root a simulated hospital, called as FLARE calls sites; every scan is another file, and none is a scan."""
    for hospital, n in zip(HOSPITALS, sizes, strict=False):
        rows = []
        for index in range(1, n + 1):
            record, name = draw_record(hospital, seed, index), f"sub-{index:04d}"
            rows.append((name, Participant(record.clinical, record.n_microbleeds, 0, 0)))
            scan = folder / hospital.name / name / "dwi" / f"{name}_dwi.nii.gz"
            scan.parent.mkdir(parents=True)
            scan.write_text(f"{CANARY} {hospital.name} {index}")
            scan.with_name(f"{name}_dwi.bval").write_text("0 1000")
        (folder / hospital.name / "participants.tsv").write_text(participants_table(rows))
    return folder


def add_clinical(root: Path, seed: int) -> None:
    """Write variables of simulated patients into the table of a root that has counts alone."""
    cases = read_cases(root).cases
    drawn = [draw_record(HOSPITALS[0], seed, index).clinical for index in range(1, len(cases) + 1)]
    rows = [
        (case.case_id, Participant(clinical, case.count or 0, 0, 0))
        for case, clinical in zip(cases, drawn, strict=True)
    ]
    (root / "participants.tsv").write_text(participants_table(rows))


def check_attributions(result: Mapping[str, Any], path: Path, cohort: Path, cache: Path, atol: float = 1e-6) -> None:
    """Compare the pooled sums of an explanation with those of all sites' test cases in one place.

    Args:
        result: ``explanation.json``.
        path: the model's file.
        cohort: one root a site.
        cache: folder for features.
        atol: of a case's value: each is rounded to 2^-30, of a network in single precision.
    """
    model, roots = load_model(path), sorted(cohort.iterdir())
    cases = [load_site_data(r.name, SiteFolders(r, cache), model.inputs, 1, model.scale).test.features for r in roots]
    rows, made, table = torch.cat(cases), result["background"], result["pooled"]["table"]
    background = common_background(model.network, made["n_rows"], made["seed"])
    groups = feature_groups(model.inputs.feature_names)
    central = explain(model.network, rows, background, groups, effort=Effort(n_passes=result["n_passes"]))
    assert {site: entry["cases"] for site, entry in result["sites"].items()} == {
        root.name: len(features) for root, features in zip(roots, cases, strict=True)
    }
    assert table["n"] == len(rows)
    values = central.values.values.numpy()
    sums = {"absolute_sum": np.abs(values), "value_sum": values, "square_sum": values**2}
    for name, of_cases in sums.items():
        np.testing.assert_allclose(table[name], of_cases.sum(axis=0), rtol=0, atol=len(rows) * atol)
    assert np.max(table["absolute_sum"]) > 0.1


def forget(root: Path, column: str, n: int = 1) -> None:
    """Take the value of one variable of the first ``n`` patients out of a root's table."""
    head, *rows = [line.split("\t") for line in (root / "participants.tsv").read_text().splitlines()]
    at = head.index(column)
    for row in rows[:n]:
        assert row[at] != "n/a"
        row[at] = "n/a"
    (root / "participants.tsv").write_text("".join("\t".join(row) + "\n" for row in (head, *rows)))


def clinical_network(seed: int = 3, columns: Sequence[str] = COLUMNS) -> tuple[SeverityMLP, ClinicalInputs]:
    """A network over clinical variables with weights that nobody trained, and moments that fit."""
    inputs = ClinicalInputs(columns)
    network = SeverityMLP(
        in_features=len(inputs.feature_names),
        hidden_features=[8],
        num_classes=4,
        dropout=0.0,
        max_deviation=8.0,
        seed=seed,
    )
    n = len(columns)
    network.feature_mean[:n] = torch.tensor([70.0, *[0.4] * (n - 1)])
    network.feature_scale[:n] = torch.tensor([11.0, *[0.5] * (n - 1)])
    network.feature_mean[n:] = 1.0
    return network.eval(), inputs


def clinical_model(path: Path, columns: Sequence[str] = COLUMNS) -> Path:
    """A model file of that network."""
    network, inputs = clinical_network(columns=columns)
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, network, inputs, "paper", weights, {})
    return path


class SiteInProcess:
    """One site: its executor, the context that FLARE would give it, and its filters."""

    def __init__(
        self, name: str, root: Path, folder: Path, executor: Executor, properties: Mapping[str, Any] | None = None
    ) -> None:
        local = folder / name / "local"
        local.mkdir(parents=True, exist_ok=True)
        (local / SITE_FILE).write_text(json.dumps({"data_root": str(root)}))
        manager = FLContextManager(
            engine=PreviewEngine(local, folder / name),
            identity_name=name,
            job_id="job",
            public_stickers={},
            private_stickers={},
        )
        self.fl_ctx: FLContext = manager.new_context()
        self.fl_ctx.set_prop(FLContextKey.SCOPE_PROPERTIES, dict(properties or {}))
        self.executor = executor
        self.filters: list[Filter] = [PayloadGuard()]
        self.sent: list[tuple[str, Shareable]] = []
        executor.handle_event(EventType.START_RUN, self.fl_ctx)

    def answer(self, task: str, request: Shareable) -> Shareable:
        """What would leave the site; of a blocked reply FLARE sends a return code alone."""
        self.fl_ctx.set_prop(FLContextKey.TASK_NAME, task, private=True, sticky=False)
        reply = self.executor.execute(task, request, self.fl_ctx, Signal())
        try:
            for step in self.filters:
                reply = step.process(reply, self.fl_ctx)
        except ContentBlockedException:
            reply = make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR)
        self.sent.append((task, reply))
        return reply


def run_in_one_process(
    controller: AnalysisController, sites: Mapping[str, SiteInProcess], folder: Path, app: Path | None = None
) -> dict[str, Any]:
    """Run the workflow with these sites; the result file.

    Args:
        controller: FLARE's transport of it is replaced, nothing else.
        sites: by name.
        folder: of the server's run.
        app: the job's app, with its ``config``.
    """

    def send_model(task_name: str, data: Any, targets: list[str], callback: Any) -> None:
        for site in targets:
            reply = sites[site].answer(task_name, FLModelUtils.to_shareable(data))
            if reply.get_return_code() == ReturnCode.OK:
                answer = FLModelUtils.from_shareable(reply)
                answer.meta["client_name"] = site
                callback(answer)

    workspace = SimpleNamespace(get_app_config_dir=lambda job: str((app or folder) / "config"))
    replaced: dict[str, Any] = {
        "send_model": send_model,
        "get_num_standing_tasks": lambda: 0,
        "sample_clients": lambda: list(sites),
        "get_run_dir": lambda: str(folder),
        "engine": SimpleNamespace(get_workspace=lambda: workspace),
        "fl_ctx": SimpleNamespace(get_job_id=lambda: "job"),
        **dict.fromkeys(("info", "warning", "error"), lambda text: None),
    }
    for name, value in replaced.items():
        setattr(controller, name, value)
    try:
        controller.run()
    except Exception as error:
        told = error
    else:
        told = None
    result = json.loads((folder / "mhsev" / controller.file_name).read_text())
    assert (told is None) == (result["status"] == "completed"), told
    return result


def arrays_of(entry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of an entry of a message."""
    return {key: value for key, value in entry.items() if isinstance(value, np.ndarray)}
