"""Radiomics of a whole brain against pyradiomics: processor time of one thread. ``--help`` says more."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmark_dsd import machine, table

sys.path.append(str(Path(__file__).resolve().parents[1] / "radiomics"))
from pyradiomics_peer import AVAILABLE, FAMILIES, pyradiomics_features, whole_brain

from mhsev_monai.radiomics import RadiomicsParameters, radiomics_features

N_VOXELS, BIN_COUNT, REPEATS = 530_000, 32, 3


def least_seconds(work: Callable[[], Mapping[str, float]]) -> tuple[float, Mapping[str, float]]:
    """Least processor time over some runs, and what came out."""
    seconds, found = float("inf"), {}
    for _ in range(REPEATS):
        start = time.process_time()
        found = work()
        seconds = min(seconds, time.process_time() - start)
    return seconds, found


def rows() -> Iterator[list[str]]:
    """Both, in the same process."""
    image, mask, spacing = whole_brain(N_VOXELS)
    ours, found = least_seconds(
        lambda: radiomics_features(image, mask, spacing, RadiomicsParameters(bin_count=BIN_COUNT))
    )
    size = f"{int(mask.sum())} voxels, {BIN_COUNT} levels"
    if not AVAILABLE:
        yield [size, "not installed", f"{ours:.2f}", "", ""]
        return
    theirs, expected = least_seconds(lambda: pyradiomics_features(image, mask, spacing, BIN_COUNT))
    apart = max(abs(found[name] - value) / max(abs(value), 1e-300) for name, value in expected.items())
    yield [size, f"{theirs:.2f}", f"{ours:.2f}", f"x{theirs / ours:.2f}", f"{apart:.1e}"]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/radiomics.md"), help="the page")
    options = parser.parse_args()
    version = importlib.metadata.version("pyradiomics-bhklab") if AVAILABLE else "absent"
    header = ["region", "pyradiomics, s", "mhsev, s", "ratio", "largest relative difference"]
    text = [
        "# Radiomics features, measured",
        "",
        f"`python tests/benchmarks/benchmark_radiomics.py` (in `make benchmark`) on {machine()}; peer: "
        f"pyradiomics-bhklab {version}, whose matrices are written in C. A smooth random texture in an ellipsoid; "
        f"families {', '.join(FAMILIES)}, no shape. pyradiomics' time includes cutting out "
        f"the region, not reading a file. Least of {REPEATS} runs, one thread.",
        "",
        *table(header, rows()),
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(text).rstrip() + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
