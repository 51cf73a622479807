"""Mosaics of a scan for the eye: b0 with the outlines of its masks, and the bias field in colours.

Slices are hung as in the report (``mhsev_monai.report.slices``). Pictures are ``data:`` addresses, small enough that a
page of hundreds of scans opens.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from mhsev_monai.report.slices import Hanging, hanging

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

N_SLICES = 16
COLUMNS = 4
FIELD_LIMIT = 2.0
"""Colours of the bias field end at this factor over the brain's mean, and at its inverse below."""

_HEAD_TILE, _FIELD_TILE = 168, 112
_MARGIN_MM = 25.0
_BRAIN_LINE, _SEARCH_LINE, _SEARCH_STRENGTH = (86, 208, 255), (255, 200, 60), 0.4
_LOW, _MIDDLE, _HIGH = (25, 85, 165), (242, 242, 236), (190, 75, 10)
_N_BANDS = 24
_JPEG_QUALITY = 72


@dataclass(frozen=True)
class Layout:
    """Which slices are shown, what part of each, and which way up.

    Attributes:
        slices: indices along the last axis.
        box: the part of each slice.
        spacing: mm along the first two axes.
        hung: how a slice is turned and flipped.
    """

    slices: tuple[int, ...]
    box: tuple[slice, slice]
    spacing: tuple[float, float]
    hung: Hanging

    @classmethod
    def around(cls, brain: BoolArray, spacing: Sequence[float], axis_codes: Sequence[str]) -> Layout:
        """Sixteen slices evenly through a brain mask that is not empty, cut 25 mm around it."""
        first, last = _extent(brain, 2)
        n = min(N_SLICES, last - first + 1)
        slices = tuple(int(first + (i + 0.5) * (last - first + 1) / n) for i in range(n))
        margins = [round(_MARGIN_MM / s) for s in spacing[:2]]
        ends = [_extent(brain, axis) for axis in (0, 1)]
        across, down = (slice(max(0, a - m), b + 1 + m) for (a, b), m in zip(ends, margins, strict=True))
        return cls(slices, (across, down), (float(spacing[0]), float(spacing[1])), hanging(axis_codes))


def head_mosaic(b0: FloatArray, brain: BoolArray, search: BoolArray, layout: Layout) -> str:
    """A JPEG of b0 with the brain mask's outline, and fainter the search mask's.

    Args:
        b0: ``(X, Y, Z)``, shown from 0 to the 99th percentile of the brain.
        brain: same shape.
        search: same shape.
        layout: from ``Layout.around``.
    """
    top = max(float(np.percentile(b0[brain], 99.0)), 1e-20)
    grey = (255.0 * np.clip(b0 / top, 0.0, 1.0)).astype(np.uint8)

    def tile(z: int) -> Pixels:
        pixels = np.repeat(_tile(grey[:, :, z], layout, _HEAD_TILE)[..., None], 3, axis=-1).astype(np.float32)
        for mask, colour, strength in ((search, _SEARCH_LINE, _SEARCH_STRENGTH), (brain, _BRAIN_LINE, 1.0)):
            line = _outline(_tile((255 * mask[:, :, z]).astype(np.uint8), layout, _HEAD_TILE) > 127)
            pixels[line] = strength * np.array(colour) + (1.0 - strength) * pixels[line]
        return pixels.astype(np.uint8)

    canvas = _mosaic(tile, layout)
    _label(canvas, layout)
    # Full colour resolution: a line of one pixel would bleed.
    return _address(canvas, "jpeg", quality=_JPEG_QUALITY, subsampling=0, optimize=True)


def field_mosaic(log_bias: FloatArray, brain: BoolArray, search: BoolArray, layout: Layout) -> str:
    """A PNG of the bias field inside the search mask, relative to its mean in the brain, in bands of equal ratio.

    Args:
        log_bias: ``(X, Y, Z)``, natural logarithm of the field.
        brain: same shape.
        search: same shape; outside it the picture is black.
        layout: from ``Layout.around``.
    """
    relative = (log_bias - log_bias[brain].mean()) / np.log(FIELD_LIMIT)
    bands = np.clip(((relative + 1.0) / 2.0 * _N_BANDS).astype(np.int64), 0, _N_BANDS - 1)
    colours = np.array(band_colours(), dtype=np.uint8)

    def tile(z: int) -> Pixels:
        shown = np.where(search[:, :, z][..., None], colours[bands[:, :, z]], 0).astype(np.uint8)
        return _tile(shown, layout, _FIELD_TILE, Image.Resampling.NEAREST)

    picture = _mosaic(tile, layout).quantize(_N_BANDS + 1, dither=Image.Dither.NONE)
    return _address(picture, "png", optimize=True)


def band_colours() -> list[tuple[int, int, int]]:
    """Colour of each band of the field from the lowest to the highest; the middle is the brain's mean."""
    colours = []
    for i in range(_N_BANDS):
        t = (i + 0.5) / _N_BANDS * 2.0 - 1.0
        end = _LOW if t < 0 else _HIGH
        red, green, blue = (round(m + abs(t) * (e - m)) for m, e in zip(_MIDDLE, end, strict=True))
        colours.append((red, green, blue))
    return colours


def _extent(mask: BoolArray, axis: int) -> tuple[int, int]:
    hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(hit[0]), int(hit[-1])


def _tile(image: Pixels, layout: Layout, width: int, resampling: Image.Resampling = Image.Resampling.BICUBIC) -> Pixels:
    """One slice as the screen shows it, ``width`` pixels wide and in the proportions of the body."""
    part = image[layout.box]
    across, down = (1, 0) if layout.hung.turned else (0, 1)
    size = [part.shape[axis] * layout.spacing[axis] for axis in (across, down)]
    rows = part if layout.hung.turned else np.swapaxes(part, 0, 1)
    rows = rows[:: -1 if layout.hung.flip_down else 1, :: -1 if layout.hung.flip_across else 1]
    height = max(1, round(width * size[1] / size[0]))
    return np.asarray(Image.fromarray(np.ascontiguousarray(rows)).resize((width, height), resampling))


def _outline(mask: BoolArray) -> BoolArray:
    line: BoolArray = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return line


def _mosaic(tile: Callable[[int], Pixels], layout: Layout) -> Image.Image:
    tiles = [tile(z) for z in layout.slices]
    height, width = tiles[0].shape[:2]
    canvas = Image.new("RGB", (COLUMNS * width, -(-len(tiles) // COLUMNS) * height), "#000000")
    for i, pixels in enumerate(tiles):
        canvas.paste(Image.fromarray(pixels), (i % COLUMNS * width, i // COLUMNS * height))
    return canvas


def _label(canvas: Image.Image, layout: Layout) -> None:
    """Slice numbers in the corners, and on the first slice the letters of its edges."""
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.width // COLUMNS, canvas.height // -(-len(layout.slices) // COLUMNS)
    font = ImageFont.load_default(12)
    for i, z in enumerate(layout.slices):
        corner = (i % COLUMNS * width + 4, (i // COLUMNS + 1) * height - 4)
        draw.text(corner, str(z + 1), fill="#c8c8c8", font=font, anchor="ld")
    if layout.hung.edges:
        places = ((8, height / 2), (width - 8, height / 2), (width / 2, 9), (width / 2, height - 9))
        for letter, place in zip(layout.hung.edges, places, strict=True):
            draw.text(place, letter, fill="#ffffff", font=ImageFont.load_default(15), anchor="mm")


def _address(picture: Image.Image, kind: str, **options: int | bool) -> str:
    stream = io.BytesIO()
    picture.save(stream, format=kind.upper(), **options)
    return f"data:image/{kind};base64," + base64.b64encode(stream.getvalue()).decode("ascii")
