"""The page of a site's quality control: one HTML file that loads nothing and needs no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from mhsev_monai.page_template import template_environment
from mhsev_monai.qc.measures import DROPOUT_LEVEL
from mhsev_monai.qc.outliers import FEWEST_SCANS, MEASURES, OUTLIER_Z, Measure
from mhsev_monai.qc.pictures import FIELD_LIMIT, band_colours
from mhsev_monai.qc.scan import ScanQC
from mhsev_monai.qc.site import SiteQC
from mhsev_monai.quality import WHOLE_BRAIN_ML

RESEARCH_USE = "Research use only. Not a medical device."
STAYS = "This page shows patients' images: it stays at the site, in the place that may see these cases."
_TICKS = (0.5, 0.71, 1.0, 1.41, 2.0)


def render_qc(site: SiteQC) -> str:
    """The page as HTML text; equal data gives equal text."""
    flagged_first = sorted(site.scans, key=lambda scan: (not site.flags[scan.case_id], scan.case_id))
    page = _environment().get_template("page.html.jinja")
    return page.render(
        site=site,
        scans=flagged_first,
        measures=MEASURES,
        gradient=_gradient(),
        ticks=[f"{100 * tick:.0f} %" for tick in _TICKS],
        limit=FIELD_LIMIT,
        research_use=RESEARCH_USE,
        stays=STAYS,
        outlier_z=OUTLIER_Z,
        fewest=FEWEST_SCANS,
        whole_brain=WHOLE_BRAIN_ML,
        dropout_level=DROPOUT_LEVEL,
    )


def _environment() -> Environment:
    return template_environment(Path(__file__).parent, shown=_shown, triple=_triple)


def _shown(scan: ScanQC, measure: Measure) -> Markup:
    """The number rounded for the eye, whole for machines; a dash with the reason where there is none."""
    value = scan.numbers.get(measure.name)
    if value is None:
        reason = scan.not_measured.get(measure.name, "not measured")
        return Markup('<span class="none" title="{}">–</span>').format(reason)
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), f"{value:.{measure.digits}f}")


def _triple(numbers: Mapping[str, float | None], name: str, digits: int) -> str:
    """Three numbers of the storage axes, such as ``1.75 × 1.75 × 2.50``; ``name`` holds ``{}`` for the axis."""
    values = [numbers[name.format(axis)] for axis in "xyz"]
    return " × ".join(f"{value:.{digits}f}" for value in values if value is not None)


def _gradient() -> str:
    """CSS stops of the colour scale, in bands as the picture has them."""
    colours = band_colours()
    stops = []
    for i, (red, green, blue) in enumerate(colours):
        stops.append(f"rgb({red} {green} {blue}) {100 * i / len(colours):.2f}% {100 * (i + 1) / len(colours):.2f}%")
    return "linear-gradient(to right, " + ", ".join(stops) + ")"
