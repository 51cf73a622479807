"""Labelled feature vectors of simulated sites: a study made in milliseconds, with no scan behind it.

Sites differ as hospitals do: in size, in how ill their patients are, and in the scanner's offset and gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mhsev_flare.site_data import SiteData
from mhsev_monai.training import LabelledFeatures

THREE_SITES = (200, 180, 120)
NINE_SITES = (70, 65, 60, 60, 55, 55, 50, 45, 40)


@dataclass(frozen=True)
class Population:
    """What the sites' cases are drawn from.

    Attributes:
        n_features: length of a feature vector.
        n_telling: how many of them, the first ones, follow log(1 + count); the others are noise.
        noise: standard deviation of each feature around that, at one scanner.
        median_count: of microbleeds over all sites.
        spread: standard deviation of log(count) within a site.
        skew: the sites' log median counts lie evenly from minus this to plus this around the common one.
        shift: standard deviation over sites of a feature's offset.
        gain: standard deviation over sites of a scanner's log gain.
        n_test: test cases of each site, beside its size.
    """

    n_features: int = 20
    n_telling: int = 6
    noise: float = 0.8
    median_count: float = 5.0
    spread: float = 1.0
    skew: float = 0.6
    shift: float = 0.4
    gain: float = 0.1
    n_test: int = 400


def simulate_sites(sizes: Sequence[int], seed: int, population: Population | None = None) -> dict[str, SiteData]:
    """Sites ``site-1``, ``site-2``, ... with four fifths of their cases for training, a fifth for validation.

    Args:
        sizes: training and validation cases of each; test cases come beside.
        seed: of everything; which site has the ill patients changes with it.
        population: what the cases are drawn from; the standard one by default.
    """
    population = population or Population()
    generator = np.random.default_rng(seed)
    skews = generator.permutation(np.linspace(-population.skew, population.skew, len(sizes)))
    return {
        f"site-{number}": _simulate_site(n_cases, float(skew), generator, population)
        for number, (n_cases, skew) in enumerate(zip(sizes, skews, strict=True), start=1)
    }


def _simulate_site(n_cases: int, skew: float, generator: np.random.Generator, population: Population) -> SiteData:
    n_all = n_cases + population.n_test
    counts = np.rint(generator.lognormal(np.log(population.median_count) + skew, population.spread, n_all))
    vectors = _vectors(counts, generator, population)
    parts = (
        LabelledFeatures(torch.from_numpy(v), torch.from_numpy(c.astype(np.float32)))
        for v, c in zip(*(np.split(x, [n_cases - n_cases // 5, n_cases]) for x in (vectors, counts)), strict=True)
    )
    return SiteData(*parts, excluded={})


def _vectors(
    counts: NDArray[np.float64], generator: np.random.Generator, population: Population
) -> NDArray[np.float32]:
    told = np.zeros(population.n_features)
    told[: population.n_telling] = 1.0
    clean = np.log1p(counts)[:, None] * told + generator.normal(0, population.noise, (len(counts), len(told)))
    gain = np.exp(generator.normal(0, population.gain))
    return (gain * clean + generator.normal(0, population.shift, len(told))).astype(np.float32)
