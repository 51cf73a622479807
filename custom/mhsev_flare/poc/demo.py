"""The demonstration with real processes: simulated hospitals, a POC federation, the federated job, a report."""

from __future__ import annotations

from pathlib import Path

from mhsev_flare.demo import JOB, DemoError, finish, make_hospitals, say, say_round
from mhsev_flare.jobs import JOBS, export_job
from mhsev_flare.poc.federation import PocError, PocFederation
from mhsev_flare.poc.following import run_job
from mhsev_flare.progress import cores
from mhsev_monai.cohort import HOSPITALS

FEDERATION = "federation"


def run_poc_demo(out: Path, n_subjects: int, seed: int, workers: int | None = None) -> str:
    """Make the hospitals, bring a federation up, run the job, write the report, bring it down.

    Args:
        out: folder for all of it; a second call goes on from the cohort that is there.
        n_subjects: in all hospitals together.
        seed: of the simulated subjects.
        workers: processes; by default as many as cores.

    Returns:
        What to look at, as text for the terminal.

    Raises:
        DemoError: if a step did not do what it should; the federation is brought down all the same.
    """
    cohort = out / "cohort"
    make_hospitals(cohort, n_subjects, seed, workers or cores())
    federation = PocFederation(out / FEDERATION)
    if federation.is_prepared:
        raise DemoError(f"a federation is left in {out / FEDERATION}; end it with `mhsev poc down {out / FEDERATION}`")
    say(f"3/4 federated training of {JOB}: a server and {len(HOSPITALS)} sites as processes of their own")
    try:
        federation.prepare({hospital.name: cohort / hospital.name for hospital in HOSPITALS})
        federation.start()
        end = run_job(federation, export_job(JOBS[JOB], out / "jobs"), say_round)
        summary = finish(end.folder, out, end.folder / "workspace" / "log.txt")
    except PocError as error:
        raise DemoError(str(error)) from error
    finally:
        if federation.is_prepared:
            federation.down()
    return f"{summary}\nmemory, at most       {end.most_bytes / 2**30:.1f} GiB of all processes together"
