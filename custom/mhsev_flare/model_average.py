"""The exponential moving average of the rounds' models: what they agree on, without the last steps' noise. No FLARE.

Sites train with a constant learning rate, so the global model keeps moving around what it has learnt, and which round
is kept rests on few validation cases. A mean over rounds lies nearer to the middle (Polyak and Juditsky 1992; Izmailov
et al. 2018, over epochs of one training). It costs no further training and one more evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def check_decay(decay: float) -> float:
    """``decay`` itself; raises ``ValueError`` unless it lies in [0, 1)."""
    if not 0 <= decay < 1:
        raise ValueError(f"ema_decay must be at least 0, which is none, and below 1; got {decay}")
    return decay


def is_kept(average_loss: float | None, last_loss: float | None) -> bool:
    """Whether the average is the model of the study: where its validation loss is not above that of the last model.

    It is not held against the best round: that is the luckiest of many on the same few cases, the average one of one.
    Where the last model is better training still gets somewhere, and an average drags behind. None: not finite.
    """
    return average_loss is not None and (last_loss is None or average_loss <= last_loss)


def averaged_models(
    average: Mapping[str, np.ndarray], model: Mapping[str, np.ndarray], decay: float, n_models: int
) -> dict[str, np.ndarray]:
    """The average with one more model: weights fall by ``decay`` with each round of age and sum to 1.

    The weights are ``(1 - decay) decay^age / (1 - decay^n_models)``: the division takes the place of an initial model,
    which is untrained (Kingma and Ba 2015, section 3).

    Args:
        average: of the models before; not read where there are none.
        model: the newest one.
        decay: in [0, 1); 0 gives the newest model.
        n_models: how many there are with it, at least 1.
    """
    share = (1 - decay) / (1 - decay**n_models)
    if n_models == 1:
        return {key: np.array(value, copy=True) for key, value in model.items()}
    return {key: _between(average[key], value, share) for key, value in model.items()}


def _between(old: np.ndarray, new: np.ndarray, share: float) -> np.ndarray:
    before = np.asarray(old, dtype=np.float64)
    return np.asarray(before + share * (np.asarray(new, dtype=np.float64) - before), dtype=np.asarray(new).dtype)
