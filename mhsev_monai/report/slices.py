"""Pictures for the report: a b = 0 slice beside its dynamic feature map, the way radiologists hang them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

PANEL_HEIGHT = 420
"""Pixels; the page shows the picture at half of it or more, so that it stays sharp."""

_RING, _RING_EDGE, _LETTER = "#56d0ff", "#000000", "#ffffff"

# Which way an axis should run on the screen, by the letter at its far end: to the right, or downwards.
_RIGHTWARDS, _DOWNWARDS = ("L", "P"), ("P", "I")
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
_WORDS = {"L": "left", "R": "right", "A": "front", "P": "back", "S": "top", "I": "underside"}


class Mark(NamedTuple):
    """A candidate to circle, in voxel indices of the slice as stored; fractions are fine; ``text`` is put beside it."""

    x: float
    y: float
    text: str = ""


class Hanging(NamedTuple):
    """How a slice as stored becomes a picture: turned first, then flipped.

    Attributes:
        turned: the first axis runs across the screen if False, down it if True.
        flip_across: the axis that runs across the screen is reversed.
        flip_down: the axis that runs down the screen is reversed.
        edges: letters at the left, right, upper and lower edge of the picture; empty where unknown.
    """

    turned: bool
    flip_across: bool
    flip_down: bool
    edges: tuple[str, str, str, str] | tuple[()]


def hanging(axis_codes: Sequence[str] | None) -> Hanging:
    """How to hang a slice: patient's left on the image's right, front up; on sagittal slices front left, top up.

    Args:
        axis_codes: where the first and the second axis run to, as nibabel's ``aff2axcodes`` writes it (``L``, ``R``,
            ``A``, ``P``, ``S``, ``I``); further ones are ignored. None: unknown, drawn with the second axis upwards.

    Raises:
        ValueError: if a code is unknown, or both name the same direction of the body.
    """
    if axis_codes is None:
        return Hanging(False, False, True, ())
    first, second = (str(code) for code in axis_codes[:2])
    if first not in _OPPOSITE or second not in _OPPOSITE or second in (first, _OPPOSITE[first]):
        raise ValueError(f"axis_codes must be two directions such as L and P, got {list(axis_codes)}")
    turned = _across_rank(second) < _across_rank(first)
    across, down = (second, first) if turned else (first, second)
    flip_across, flip_down = across not in _RIGHTWARDS, down not in _DOWNWARDS
    right = _OPPOSITE[across] if flip_across else across
    lower = _OPPOSITE[down] if flip_down else down
    return Hanging(turned, flip_across, flip_down, (_OPPOSITE[right], right, _OPPOSITE[lower], lower))


def _across_rank(code: str) -> int:
    """Left-right runs across the screen before front-back, and that before top-bottom."""
    return next(rank for rank, pair in enumerate(("LR", "AP", "SI")) if code in pair)


def orientation_words(axis_codes: Sequence[str] | None) -> str:
    """A sentence for the caption that says how the slice is hung."""
    edges = hanging(axis_codes).edges
    if not edges:
        return "Orientation unknown: shown as stored."
    _, right, upper, _ = edges
    return f"The patient's {_WORDS[right]} is on the image's right, the {_WORDS[upper]} of the head is up."


_GAP = 8
"""Pixels between two panels."""


def slice_pair_png(
    b0: ArrayLike,
    dsd: ArrayLike | None,
    marks: Sequence[Mark],
    spacing: tuple[float, float] = (1.0, 1.0),
    axis_codes: Sequence[str] | None = None,
) -> str:
    """A PNG, as a ``data:`` address, of a b = 0 slice beside its map at the same place, candidates circled on both.

    Args:
        b0: ``(X, Y)``, shown in grey from its 1st to its 99.5th percentile.
        dsd: ``(X, Y)``; what is darker than its surroundings (negative) in orange, brighter in blue, zero black. None:
            the model computes no map, and the slice stands alone.
        marks: in voxels of the slice as stored.
        spacing: mm a voxel along X and Y; gives the picture its proportions.
        axis_codes: see ``hanging``; letters at the edges say the orientation where it is known.

    Raises:
        ValueError: if the slices are not two-dimensional and of equal shape, or ``spacing`` is not positive.
    """
    image = _finite_slice(b0, "b0")
    pictures = [_grey(image)]
    if dsd is not None:
        feature_map = _finite_slice(dsd, "dsd")
        if image.shape != feature_map.shape:
            raise ValueError(f"b0 and dsd must have one shape, got {image.shape} and {feature_map.shape}")
        pictures.append(_orange_blue(feature_map))
    if not all(np.isfinite(s) and s > 0 for s in spacing[:2]):
        raise ValueError(f"spacing must be two positive lengths in mm, got {spacing}")
    layout = hanging(axis_codes)
    panels = [_panel(pixels, marks, layout, spacing) for pixels in pictures]
    width, height = panels[0].size
    canvas = Image.new("RGB", (len(panels) * (width + _GAP) - _GAP, height), "#000000")
    for number, panel in enumerate(panels):
        canvas.paste(panel, (number * (width + _GAP), 0))
    stream = io.BytesIO()
    canvas.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _finite_slice(value: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} must be a slice (X, Y), got shape {array.shape}")
    return np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)


def _grey(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """``(X, Y, 3)`` grey levels."""
    low, high = np.percentile(image, [1.0, 99.5])
    level = np.clip((image - low) / (high - low), 0, 1) if high > low else np.zeros_like(image)
    return np.repeat((255 * level).astype(np.uint8)[..., None], 3, axis=-1)


def _orange_blue(feature_map: NDArray[np.float64]) -> NDArray[np.uint8]:
    """``(X, Y, 3)``: negative orange, positive blue, both told apart by all common kinds of colour vision."""
    # Few voxels of a slice are a lesion: a percentile of all of them would let the noise glow.
    top = float(np.quantile(np.abs(feature_map), 0.998))
    strength = np.clip(np.abs(feature_map) / top, 0, 1) if top > 0 else np.zeros_like(feature_map)
    colour = np.where((feature_map < 0)[..., None], (255, 176, 40), (70, 130, 220))
    pixels: NDArray[np.uint8] = (strength[..., None] * colour).astype(np.uint8)
    return pixels


def _panel(
    pixels: NDArray[np.uint8], marks: Sequence[Mark], layout: Hanging, spacing: tuple[float, float]
) -> Image.Image:
    n_across, n_down = (1, 0) if layout.turned else (0, 1)
    # Rows of a picture run down: the axis that runs down comes first.
    rows = pixels if layout.turned else pixels.transpose(1, 0, 2)
    rows = rows[:: -1 if layout.flip_down else 1, :: -1 if layout.flip_across else 1]
    millimetres = (pixels.shape[n_across] * spacing[n_across], pixels.shape[n_down] * spacing[n_down])
    size = (max(1, round(PANEL_HEIGHT * millimetres[0] / millimetres[1])), PANEL_HEIGHT)
    panel = Image.fromarray(np.ascontiguousarray(rows)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(panel)
    for mark in marks:
        place = _screen_place(mark, layout, pixels.shape[:2], size)
        _draw_ring(draw, place)
        if mark.text:
            _draw_number(draw, place, mark.text, size)
    if layout.edges:
        _draw_letters(draw, layout.edges, size)
    return panel


def _screen_place(mark: Mark, layout: Hanging, shape: tuple[int, ...], size: tuple[int, int]) -> tuple[float, float]:
    n_across, n_down = (1, 0) if layout.turned else (0, 1)
    # A voxel's index names its middle, half a voxel from its edge.
    voxel = (mark.x, mark.y)
    across, down = (voxel[n_across] + 0.5) / shape[n_across], (voxel[n_down] + 0.5) / shape[n_down]
    across = 1 - across if layout.flip_across else across
    down = 1 - down if layout.flip_down else down
    return across * size[0], down * size[1]


def _draw_ring(draw: ImageDraw.ImageDraw, place: tuple[float, float]) -> None:
    for radius, width, colour in ((14, 5, _RING_EDGE), (13, 3, _RING)):
        box = (place[0] - radius, place[1] - radius, place[0] + radius, place[1] + radius)
        draw.ellipse(box, outline=colour, width=width)


def _draw_number(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: tuple[int, int]) -> None:
    """Beside the ring, on the side that has room."""
    right = place[0] + 60 < size[0]
    at = (place[0] + (18 if right else -18), place[1] - 12)
    font = ImageFont.load_default(20)
    anchor = "lm" if right else "rm"
    draw.text(at, text, fill=_RING, font=font, anchor=anchor, stroke_width=2, stroke_fill=_RING_EDGE)


def _draw_letters(draw: ImageDraw.ImageDraw, edges: Sequence[str], size: tuple[int, int]) -> None:
    width, height = size
    font = ImageFont.load_default(24)
    places = ((16, height / 2), (width - 16, height / 2), (width / 2, 18), (width / 2, height - 18))
    for letter, place in zip(edges, places, strict=True):
        draw.text(place, letter, fill=_LETTER, font=font, anchor="mm", stroke_width=2, stroke_fill=_RING_EDGE)
