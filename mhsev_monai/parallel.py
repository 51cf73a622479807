"""The same work on many cases, in processes of their own, with progress and without a child left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

import torch

from mhsev_monai.cases import Case
from mhsev_monai.errors import CohortError

Result = TypeVar("Result")


def for_each_case(
    cases: Sequence[Case],
    work: Callable[[Case], Result],
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Result]:
    """What ``work`` returns for each case, by case id.

    Args:
        cases: any number.
        work: picklable where ``workers`` > 1; what it raises ends the batch.
        workers: processes; 1 computes in this one.
        progress: called with the number done and the total after each case.

    Raises:
        CohortError: if a worker was ended by the operating system.
    """
    outcomes: dict[str, Result] = {}
    if workers <= 1:
        for done, case in enumerate(cases, start=1):
            outcomes[case.case_id] = work(case)
            progress(done, len(cases))
        return outcomes
    # spawn: a forked child of a process that has used torch threads can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    try:
        jobs = {pool.submit(work, case): case.case_id for case in cases}
        for done, job in enumerate(as_completed(jobs), start=1):
            outcomes[jobs[job]] = job.result()
            progress(done, len(cases))
    except BrokenProcessPool:
        raise CohortError(
            "a worker process was ended from outside, most likely for want of memory; use fewer with --workers; "
            "what was finished is kept where results are kept"
        ) from None
    finally:
        # An interrupted batch must not wait for hundreds of scans that nobody asked to finish.
        pool.shutdown(wait=True, cancel_futures=True)
    return outcomes
