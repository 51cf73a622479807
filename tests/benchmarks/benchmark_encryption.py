"""What encryption makes of one round: bytes of a message and seconds, in one process, with FLARE's own filters.

python tests/benchmarks/benchmark_encryption.py dsd_mlp radiomics_mlp cnn3d
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tenseal
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_opt.he.constant import HE_ALGORITHM_CKKS
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
from nvflare.app_opt.he.model_shareable_generator import HEModelShareableGenerator
from nvflare.fuel.utils import fobs
from nvflare.lighter.impl.he import HEBuilder

from mhsev_flare.encrypted_payload import PACKED, PackUpdate, UnpackModel, packed, parameter_shapes
from mhsev_flare.jobs import JOBS
from mhsev_flare.protocol import Meta

N_SITES, N_CASES = 3, 100


class NoEngine:
    """FLARE's components log through an engine's events."""

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Nobody listens."""


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` returns, and the seconds that it took."""
    began = time.perf_counter()
    made = work()
    return made, time.perf_counter() - began


def context() -> FLContext:
    """FLARE's context, as a site has it in a task."""
    made, peer = (
        FLContextManager(
            engine=NoEngine(), identity_name=name, job_id="job", public_stickers={}, private_stickers={}
        ).new_context()
        for name in ("site-1", "server")
    )
    made.set_peer_context(peer)
    return made


def wire_bytes(message: Shareable) -> int:
    """Bytes of a message in FLARE's form for the wire."""
    return len(fobs.dumps(message))


def update_of(shapes: dict[str, tuple[int, ...]], seed: int = 1) -> DXO:
    """An update of random numbers; a ciphertext's size does not depend on what it holds."""
    generator = np.random.default_rng(seed)
    data = {key: generator.normal(scale=0.01, size=shape).astype(np.float32) for key, shape in shapes.items()}
    return DXO(DataKind.WEIGHT_DIFF, data, {Meta.N_SAMPLES: N_CASES, MetaKey.NUM_STEPS_CURRENT_ROUND: N_CASES})


def measure(name: str, site: Any, server: Any) -> str:
    """One row of the table."""
    network, fl_ctx = JOBS[name].network, context()
    shapes = parameter_shapes(network)
    plain = wire_bytes(update_of(shapes).to_shareable())
    encryptor, decryptor, generator = (
        HEModelEncryptor(encrypt_layers=[PACKED]),
        HEModelDecryptor(),
        HEModelShareableGenerator(),
    )
    encryptor.tenseal_context = decryptor.tenseal_context = site
    generator.tenseal_context = server
    packing = PackUpdate(network, "samples")
    sealed, seal = timed(lambda: encryptor.process(packing.process(update_of(shapes).to_shareable(), fl_ctx), fl_ctx))
    up = fobs.dumps(sealed)
    arrived = [from_shareable(fobs.loads(up)).data[PACKED] for _ in range(N_SITES)]
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable({PACKED: packed(state, shapes)}, {}))

    def add() -> Any:
        total = arrived[0]
        for other in arrived[1:]:
            total = total + other
        own = {MetaKey.PROCESSED_KEYS: {PACKED: True}, MetaKey.PROCESSED_ALGORITHM: HE_ALGORITHM_CKKS}
        mean = DXO(DataKind.WEIGHT_DIFF, {PACKED: total * (1.0 / (N_SITES * N_CASES))}, own)
        return generator.learnable_to_shareable(generator.shareable_to_learnable(mean.to_shareable(), fl_ctx), fl_ctx)

    model, summed = timed(add)
    down = wire_bytes(model)
    opened, opening = timed(lambda: UnpackModel(network).process(decryptor.process(model, fl_ctx), fl_ctx))
    expected = packed(state, shapes) + packed(update_of(shapes).data, shapes)
    error = np.abs(packed(from_shareable(opened).data, shapes) - expected).max()
    apart = unpacked_bytes(shapes, site) if len(expected) < 10**5 else None
    cells = [name, f"{len(expected):,}", *(f"{n / 1e6:.2f} MB" for n in (plain, len(up), down))]
    cells += [f"{apart / 1e6:.1f} MB" if apart else "-", f"{seal:.2f} s", f"{summed:.2f} s", f"{opening:.2f} s"]
    return "| " + " | ".join([*cells, f"{error:.0e}"]) + " |"


def unpacked_bytes(shapes: dict[str, tuple[int, ...]], site: Any) -> int:
    """Bytes of an update that FLARE's encryptor got entry by entry; it fails on empty ones, which are left out."""
    encryptor = HEModelEncryptor()
    encryptor.tenseal_context, encryptor.encrypt_layers = site, [True]
    filled = {key: shape for key, shape in shapes.items() if 0 not in shape}
    return wire_bytes(encryptor.process(update_of(filled).to_shareable(), context()))


def main() -> None:
    """Print the table for the jobs that are named."""
    parser = argparse.ArgumentParser(description="What encryption makes of one round: bytes and seconds.")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)}; all by default")
    chosen = parser.parse_args().jobs or list(JOBS)
    unknown = [name for name in chosen if name not in JOBS]
    if unknown:
        parser.error(f"no job {', '.join(unknown)}; there are {', '.join(JOBS)}")
    flare_decomposers.register()
    common_decomposers.register()
    builder = HEBuilder()
    builder.initialize(None, None)
    site, server = (tenseal.context_from(builder.get_serialized_context(is_client=side)) for side in (True, False))
    print("| job | parameters | in the clear | update | model | entry by entry | encrypt | add 3 | decrypt | error |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in chosen:
        print(measure(name, site, server), flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
