"""When further rounds are not worth their time. No FLARE."""

from __future__ import annotations

from collections.abc import Sequence


def has_converged(losses: Sequence[float | None], patience: int, least_improvement: float) -> bool:
    """Whether the last ``patience`` losses brought no improvement on the best one before them.

    Args:
        losses: validation loss of each round's starting model, in order; None where it is not known.
        patience: rounds to wait; 0 never ends.
        least_improvement: how much lower, relative to the best loss so far, a loss must be to count; 0 counts any.

    A loss that is not known counts as no improvement: a run whose losses vanish ends instead of going on blindly.
    """
    if patience == 0:
        return False
    best, waited = float("inf"), 0
    for loss in losses:
        if loss is not None and loss < best - least_improvement * (abs(best) if best < float("inf") else 0.0):
            best, waited = loss, 0
        else:
            waited += 1
    return waited >= patience
