"""FLARE's aggregator of ciphertexts, behind those gates that need no look at the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tenseal  # type: ignore[import-untyped]
from nvflare.apis.dxo import MetaKey, from_shareable
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_opt.he.intime_accumulate_model_aggregator import HEInTimeAccumulateWeightedAggregator

from mhsev_flare.aggregator import Contribution
from mhsev_flare.encrypted_payload import PACKED, raw_weight
from mhsev_flare.gates import ExpectedUpdate, meta_refusal
from mhsev_flare.protocol import BUFFERS, Meta


def ciphertext_refusal(data: Mapping[str, Any], n_parameters: int) -> str:
    """Why an update is not an encrypted one of this model; empty where it is.

    Args:
        data: entries of the update.
        n_parameters: of the network.
    """
    if not isinstance(data, Mapping) or PACKED not in data or set(data) - {PACKED, *BUFFERS}:
        return "entries that are not those of an encrypted update"
    vector = data[PACKED]
    if not isinstance(vector, tenseal.CKKSVector):
        return "an update that is not encrypted; export the job again, and send it to every site"
    if vector.context().is_private():
        return "an update with the secret key; the sites need new keys"
    if vector.size() != n_parameters:
        return f"{vector.size()} parameters where the network has {n_parameters}"
    if any(not isinstance(data[key], np.ndarray) or np.any(data[key] != 0) for key in data if key != PACKED):
        return "changes of the standardisation or the class weights, which are the federation's"
    return ""


class EncryptedAggregator(HEInTimeAccumulateWeightedAggregator):
    """Adds the sites' ciphertexts, as FLARE's aggregator does, and divides by the sum of their weights.

    An update is refused for another protocol, feature schema, number of cases or weight than the handshake's, for a
    table that is none, for another number of parameters, and if it is not encrypted. Whatever the ciphertext holds is
    taken: no length, no sign and no direction can be seen.

    Args:
        weighting: how sites count, see ``mhsev_flare.weighting``.
    """

    def __init__(self, weighting: str) -> None:
        # The sites weigh before they encrypt; another product of ciphertexts would need larger ones.
        super().__init__(weigh_by_local_iter=False)
        self.weighting = weighting
        self._expected: ExpectedUpdate | None = None
        self._n_parameters = 0
        self._contributions: list[Contribution] = []

    def expect(self, expected: ExpectedUpdate, n_parameters: int) -> None:
        """Say what an acceptable update of the coming rounds looks like."""
        self._expected, self._n_parameters = expected, n_parameters

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Take one site's update into the round; whether it was taken."""
        site = str(shareable.get_peer_prop(ReservedKey.IDENTITY_NAME, "unnamed site"))
        dxo = from_shareable(shareable)
        contribution = Contribution(site=site, meta=dict(dxo.meta))
        contribution.reason = self._refusal(dxo.data, contribution.meta, site)
        if not contribution.reason and not super().accept(shareable, fl_ctx):
            contribution.reason = "FLARE's aggregator did not take it: another round, or a second update; see its log"
        if any(known.site == site and known.accepted for known in self._contributions):
            return False
        if contribution.reason:
            self.log_error(fl_ctx, f"{site}: {contribution.reason}")
        else:
            contribution.accepted, contribution.n_samples = True, int(contribution.meta[Meta.N_SAMPLES])
        self._contributions.append(contribution)
        return contribution.accepted

    def _refusal(self, data: Any, meta: Mapping[str, Any], site: str) -> str:
        if self._expected is None:
            return "the server has not said which model it expects"
        reason = meta_refusal(meta, site, self._expected) or ciphertext_refusal(data, self._n_parameters)
        if reason:
            return reason
        weight = raw_weight(self.weighting, meta[Meta.N_SAMPLES])
        told = meta.get(MetaKey.NUM_STEPS_CURRENT_ROUND)
        return "" if told == weight else f"another weight than that of {meta[Meta.N_SAMPLES]} cases"

    def contributions(self) -> tuple[Contribution, ...]:
        """This round's contributions, refused ones included, sorted by site."""
        accepted = [c for c in self._contributions if c.accepted]
        weights = [raw_weight(self.weighting, c.n_samples) for c in accepted]
        for contribution, weight in zip(accepted, weights, strict=True):
            contribution.share = weight / sum(weights)
        return tuple(sorted(self._contributions, key=lambda c: c.site))

    def reset(self, fl_ctx: FLContext) -> None:
        """Forget the round."""
        super().reset(fl_ctx)
        self._contributions = []
