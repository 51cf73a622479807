"""The server's side of SCAFFOLD: control variates as arrays (Karimireddy et al. 2020, algorithm 1). No FLARE.

The sites' side is FLARE's ``PTScaffoldHelper``. Local training here uses AdamW where the paper uses SGD: the variates
then are mean steps divided by the learning rate instead of mean gradients, and correct steps in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mhsev_flare.protocol import BUFFERS

CONTROLS = "controls/"
"""Prefix of their names in a checkpoint."""


def zero_controls(model: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A control variate of zeros for each entry that training changes, under the names of a checkpoint."""
    return {
        CONTROLS + key: np.zeros(np.shape(value), dtype=np.float32)
        for key, value in model.items()
        if key not in BUFFERS
    }


def control_arrays(extra: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The control variates among a checkpoint's further arrays, by the model's keys."""
    return {key.removeprefix(CONTROLS): value for key, value in extra.items() if key.startswith(CONTROLS)}


def added_controls(
    extra: Mapping[str, np.ndarray], deltas: Sequence[Mapping[str, np.ndarray]], n_sites: int
) -> dict[str, np.ndarray]:
    """New variates: c + (1 / N) * sum of the sites' changes, N being all sites (algorithm 1, line 17).

    Args:
        extra: arrays of a checkpoint; those that are no control variates are handed through.
        deltas: of the sites whose update was accepted, in order of their names.
        n_sites: number of sites in the study.
    """
    added = dict(extra)
    for key, value in control_arrays(extra).items():
        change = sum((np.asarray(delta[key], dtype=np.float64) for delta in deltas if key in delta), np.zeros(()))
        added[CONTROLS + key] = (value + change / n_sites).astype(np.float32)
    return added
