"""A model as one vector, so that it fits few ciphertexts: packing, unpacking, and the site's filters that do so.

FLARE encrypts entry by entry, and each ciphertext has room for 4096 numbers however few there are; with each one that a
site sends goes a copy of the public part of its keys. One vector instead of 21 entries makes the update of ``dsd_mlp``
16 times smaller. An empty entry, which the network of ``detector_count`` has, FLARE's encryptor cannot take at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from torch import nn

from mhsev_flare.combination import MEAN, Combination
from mhsev_flare.protocol import BUFFERS, Meta

PACKED = "parameters"
"""The one entry that is encrypted. ``BUFFERS`` stand beside it in the clear: the server itself makes them of sums."""


IN_THE_CLEAR = (
    Meta.PROTOCOL,
    Meta.FINGERPRINT,
    Meta.ROUND,
    Meta.N_SAMPLES,
    Meta.TRAIN_LOSS,
    Meta.VALIDATION_LOSS,
    Meta.TABLE,
)
"""What a site tells the server beside an encrypted update."""


def parameter_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of what training changes, by name, in the order in which it is packed."""
    return {key: tuple(value.shape) for key, value in network.state_dict().items() if key not in BUFFERS}


def packed(weights: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """The entries of ``shapes``, one behind the other, as one float64 vector; others are left out."""
    return np.concatenate([np.asarray(weights[key], dtype=np.float64).ravel() for key in shapes])


def unpacked(vector: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The entries that were packed, as float32.

    Raises:
        ValueError: if the vector has another length than the shapes together.
    """
    values, sizes = np.asarray(vector, dtype=np.float32).ravel(), [int(np.prod(shape)) for shape in shapes.values()]
    if values.size != sum(sizes):
        raise ValueError(f"the model that came has {values.size} parameters where this network has {sum(sizes)}")
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return {key: part.reshape(shape) for (key, shape), part in zip(shapes.items(), parts, strict=True)}


CKKS = "CKKS"
"""FLARE's name of the scheme, which its own module tells only where tenseal is installed."""


def raw_weight(weighting: str, n_cases: int) -> float:
    """What a site multiplies its update by before it encrypts it; the server divides the sum by the sum of these."""
    return float(Combination(weighting, MEAN).raw_weight(n_cases, ()))


def as_arrays(model: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A model's entries as arrays, as the server holds them; a ciphertext becomes its bytes."""
    return {k: np.frombuffer(v, np.uint8) if isinstance(v, bytes) else np.asarray(v) for k, v in model.items()}


def as_message(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> DXO:
    """What :func:`as_arrays` made, as a message of weights that FLARE's decryptor understands."""
    encrypted = {key: value.dtype == np.uint8 for key, value in arrays.items()}
    data = {key: value.tobytes() if encrypted[key] else value for key, value in arrays.items()}
    own = {MetaKey.PROCESSED_KEYS: encrypted, MetaKey.PROCESSED_ALGORITHM: CKKS}
    return DXO(DataKind.WEIGHTS, data=data, meta={**meta, **(own if any(encrypted.values()) else {})})


class PackUpdate(DXOFilter):
    """Makes one vector of a site's update, before FLARE's encryptor.

    The number by which encryptor and aggregator weigh an update goes into FLARE's ``NUM_STEPS_CURRENT_ROUND``, where
    both look for it. Beside the update only ``IN_THE_CLEAR`` leaves: not the digest of the weights from which the site
    trained, with which the server could try out guesses of the model, and no change of control variates, which would
    be the update in other words. Buffers are sent as zeros, in the clear, since FLARE's decryptor fails on a model
    with an entry that no update had.

    Args:
        network: the executor's.
        weighting: how sites count, see ``mhsev_flare.weighting``.
    """

    def __init__(self, network: nn.Module, weighting: str) -> None:
        super().__init__(supported_data_kinds=[DataKind.WEIGHT_DIFF], data_kinds_to_filter=[DataKind.WEIGHT_DIFF])
        self.network = network
        self.weighting = weighting

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:  # noqa: ARG002
        """The update as one vector.

        Raises:
            ContentBlockedException: if a value is not finite; then nothing is sent. In a sum of ciphertexts one such
                value spoils the model of all, and nobody but the site itself can see it.
        """
        vector = packed(dxo.data, parameter_shapes(self.network))
        if not np.isfinite(vector).all():
            reason = "the update of this round holds values that are not finite, so nothing of it was sent"
            self.log_error(fl_ctx, reason)
            raise ContentBlockedException(reason)
        state = self.network.state_dict()
        zeros = {key: np.zeros(tuple(state[key].shape)) for key in BUFFERS if key in state}
        meta = {key: value for key, value in dxo.meta.items() if key in IN_THE_CLEAR}
        meta[MetaKey.NUM_STEPS_CURRENT_ROUND] = raw_weight(self.weighting, meta[Meta.N_SAMPLES])
        return DXO(DataKind.WEIGHT_DIFF, data={PACKED: vector, **zeros}, meta=meta)


class UnpackModel(DXOFilter):
    """Makes a network's entries of the vector that comes out of FLARE's decryptor.

    Args:
        network: the executor's.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=[DataKind.WEIGHTS])
        self.network = network

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:  # noqa: ARG002
        """The model by entries; None, which is FLARE's word for unchanged, if it is none."""
        if PACKED not in dxo.data:
            return None
        rest = {key: value for key, value in dxo.data.items() if key != PACKED}
        parameters = unpacked(dxo.data[PACKED], parameter_shapes(self.network))
        return DXO(dxo.data_kind, data={**rest, **parameters}, meta=dxo.meta)
