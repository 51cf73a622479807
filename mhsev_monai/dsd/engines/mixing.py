"""The direction along which both kernels reflect every matrix, so that none is in blocks."""

from __future__ import annotations

import numpy as np

# Multiples of the golden ratio, never near 0: no pattern of a picture repeats them.
MIXING = (0.5 + (np.arange(1, 33) * 0.6180339887498949) % 1).astype(np.float32)
