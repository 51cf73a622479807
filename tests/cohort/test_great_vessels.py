"""The great vessels: where anatomy has them, in the scan, and as random as every head needs."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.great_vessels import COURSES, draw_great_vessels
from mhsev_monai.cohort.mimics import Mimics, paint_mimics
from mhsev_monai.cohort.placement import nearest_to_template, nearest_voxels

STRAIGHT_SINUS, BASILAR, VERTEX = (0, -60, -2), (0, -8, -30), (0, -10, 78)


@pytest.fixture(scope="module")
def vessels(head):
    grid, anatomy = head
    return draw_great_vessels(np.random.default_rng(3), anatomy, grid)


@pytest.mark.parametrize("place", [STRAIGHT_SINUS, BASILAR, VERTEX])
def test_vessels_lie_where_anatomy_has_them(head, vessels, place):
    grid, anatomy = head
    there = nearest_to_template(anatomy, grid, place)
    nearest = min(float(np.linalg.norm(piece.body.curve - there, axis=1).min()) for piece in vessels)
    # They stray by 1.5 mm along each axis, and places are known to half a voxel of 3.4 x 3.4 x 5 mm.
    assert nearest < 6.0


def test_vessels_lie_in_the_scan(head, vessels):
    grid, _ = head
    for axis in range(3):
        positions = np.concatenate([piece.body.curve[:, axis] for piece in vessels])
        margin = grid.spacing[axis] / 2 + 2.0
        assert grid.axis(axis)[0] - margin <= positions.min()
        assert positions.max() <= grid.axis(axis)[-1] + margin


def test_calibres_and_losses_stay_in_the_range_of_their_vessel(vessels):
    for piece in vessels:
        course = COURSES[piece.name]
        assert course.radius[0] <= piece.body.radius <= course.radius[1]
        assert course.loss[0] <= piece.loss <= course.loss[1]


def test_no_piece_is_long(vessels):
    """Painting looks at every voxel of the box around a piece."""
    for piece in vessels:
        assert np.linalg.norm(np.ptp(piece.body.curve, axis=0)) < 25.0


def test_sinuses_have_no_gaps(vessels):
    whole = [piece.body for piece in vessels if piece.name.endswith("sinus")]
    assert whole
    for body in whole:
        steps = np.linalg.norm(np.diff(body.curve, axis=0), axis=1)
        assert steps.max(initial=0.0) < 2 * body.radius


def test_a_paired_vessel_has_a_side_each(head, vessels):
    grid, anatomy = head
    for side in (1, -1):
        there = nearest_to_template(anatomy, grid, (side * 55, -62, -32))
        assert min(float(np.linalg.norm(piece.body.curve - there, axis=1).min()) for piece in vessels) < 7.0


def test_arteries_run_beside_brain_tissue_and_not_in_it(head, vessels):
    grid, anatomy = head
    points = np.concatenate([piece.body.curve for piece in vessels if COURSES[piece.name].in_fluid])
    assert len(points) > 10
    assert anatomy.parenchyma[nearest_voxels(points, grid)].max() <= 0.5


def test_every_head_draws_alike(head):
    """So that what is drawn next from the stream does not depend on what the scan holds."""
    grid, anatomy = head
    cut = grid._replace(shape=(*grid.shape[:2], 8))
    part = anatomy._replace(
        template_position=anatomy.template_position[:, :, :8], brain_depth=anatomy.brain_depth[:, :, :8]
    )
    whole_stream, part_stream = np.random.default_rng(1), np.random.default_rng(1)
    whole, few = draw_great_vessels(whole_stream, anatomy, grid), draw_great_vessels(part_stream, part, cut)
    assert len(few) < len(whole)
    assert whole_stream.random() == part_stream.random()


def test_vessels_take_signal_and_nothing_else(head, vessels):
    grid, _ = head
    effects = paint_mimics(Mimics(great_vessels=vessels), grid)
    assert effects.kept.min() < 0.6
    assert 0.001 < float((effects.kept < 0.9).mean()) < 0.05
    assert not effects.fluid.any()
    assert not effects.restricted.any()
    assert not effects.hyperintense.any()
