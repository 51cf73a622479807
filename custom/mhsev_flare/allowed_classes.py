"""What a site lets jobs name: the classes of this package that jobs are made of, and no others. No FLARE.

FLARE 2.9 imports what a job names and calls it with the job's arguments, a class or a function alike. A list that held
whole packages would let a job call any function of them at every site, the command line among them.
"""

from __future__ import annotations

JOB_CLASSES = (
    "mhsev_flare.aggregator.SeverityAggregator",
    "mhsev_flare.analysis.association_controller.AssociationController",
    "mhsev_flare.analysis.association_executor.AssociationExecutor",
    "mhsev_flare.analysis.explanation_controller.ExplanationController",
    "mhsev_flare.analysis.explanation_executor.ExplanationExecutor",
    "mhsev_flare.analysis.explanation_plan.ExplanationPlan",
    "mhsev_flare.controller.SeverityFedAvg",
    "mhsev_flare.encrypted_aggregator.EncryptedAggregator",
    "mhsev_flare.encrypted_payload.PackUpdate",
    "mhsev_flare.encrypted_payload.UnpackModel",
    "mhsev_flare.encrypted_study.EncryptedStudy",
    "mhsev_flare.executor.SeverityExecutor",
    "mhsev_flare.participation.RoundPolicy",
    "mhsev_flare.server_optimiser.ServerOptimiser",
    "mhsev_monai.candidate_network.CandidateMLP",
    "mhsev_monai.clinical_inputs.ClinicalInputs",
    "mhsev_monai.described_patch_inputs.DescribedPatchInputs",
    "mhsev_monai.described_patch_network.DescribedPatchNetwork",
    "mhsev_monai.inputs.DSDCandidateInputs",
    "mhsev_monai.inputs.DSDInputs",
    "mhsev_monai.networks.SeverityMLP",
    "mhsev_monai.noise_inputs.ContrastNoiseInputs",
    "mhsev_monai.patch_inputs.CandidatePatchInputs",
    "mhsev_monai.patch_network.CandidateCNN",
    "mhsev_monai.private_training.PrivacyParameters",
    "mhsev_monai.radiomics.inputs.RadiomicsInputs",
    "mhsev_monai.radiomics.spot_inputs.SpotRadiomicsInputs",
    "mhsev_monai.volume_inputs.VolumeInputs",
    "mhsev_monai.volume_network.SeverityCNN3d",
)
"""Of jobs, in server and sites."""

SITE_CLASSES = (
    "mhsev_flare.entry_blocker.EntryBlocker",
    "mhsev_flare.ghost_jobs.GhostJobs",
    "mhsev_flare.payload_guard.PayloadGuard",
    "mhsev_flare.small_cell_cleanser.SmallCellCleanser",
)
"""Of the sites' own ``privacy.json`` and the server's ``resources.json``."""

ALLOWED_CLASSES = (*JOB_CLASSES, *SITE_CLASSES)

LEAKING_CLASSES = (
    "nvflare.app_common.widgets.convert_to_fed_event.ConvertToFedEvent",
    "nvflare.app_common.logging.job_log_streamer.JobLogStreamer",
)
"""Of FLARE's default list: they send events and logs of a site to the server, past the filters of results."""
