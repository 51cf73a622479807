"""One slice: where it lies and how it was weighted, from classic elements or from functional groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mhsev_monai.ingest.dicom import tags
from mhsev_monai.ingest.dicom.b_values import frame_b_value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MOST_FRAMES = 200_000
_PLANE_POSITION, _PLANE_ORIENTATION, _PIXEL_MEASURES = 0x00209113, 0x00209116, 0x00289110
_FRAME_CONTENT, _ECHO, _REAL_WORLD, _FRAME_TYPE = 0x00209111, 0x00189114, 0x00289145, 0x00189226
_DIFFUSION, _GRADIENT_DIRECTION = 0x00189117, 0x00189076
_GROUPS = (
    _PLANE_POSITION,
    _PLANE_ORIENTATION,
    _PIXEL_MEASURES,
    _FRAME_CONTENT,
    _ECHO,
    _REAL_WORLD,
    _FRAME_TYPE,
    _DIFFUSION,
)
Triple = tuple[float, ...]


@dataclass(frozen=True)
class Frame:
    """One slice: where it lies and how it was weighted. Lengths in mm, LPS coordinates as DICOM has them.

    Attributes:
        number: index in its file, from 0.
        position: of the first pixel, 3 numbers; empty if the header does not tell.
        orientation: directions of rows and columns, 6 numbers; empty if the header does not tell.
        spacing: between rows, between columns; empty if the header does not tell.
        b_value: s/mm^2; None if the header does not tell.
        direction: of the diffusion gradient, 3 numbers; empty if the header does not tell.
        stack_position: of the slice within its stack, from 1; None if the header does not tell.
        stack: label of the stack.
        slope, intercept: from stored to real values.
        echo_time: ms; None if the header does not tell.
        image_type: what the frame's own Image Type says beyond its file's; empty if nothing.
        component: its Complex Image Component, such as MAGNITUDE or PHASE; empty if the header does not tell.
    """

    number: int
    position: Triple
    orientation: Triple
    spacing: Triple
    b_value: float | None
    direction: Triple
    stack_position: int | None
    stack: str
    slope: float
    intercept: float
    echo_time: float | None
    image_type: tuple[str, ...]
    component: str = ""


def read_frames(dataset: Dataset) -> tuple[Frame, ...]:
    """The frames of a file, of which a classic one has one."""
    shared = _item(dataset, tags.SHARED)
    per_frame = tags.raw_value(dataset, tags.PER_FRAME)
    if not per_frame:
        n_frames = min(max(tags.whole(dataset, 0x00280008) or 1, 1), _MOST_FRAMES)
        return tuple(_frame(number, [dataset]) for number in range(n_frames))
    frames = []
    isotropic = []
    for number, item in enumerate(per_frame):
        sources = [item, shared, dataset] if shared is not None else [item, dataset]
        frames.append(_frame(number, sources))
        isotropic.append(is_isotropic(_groups(sources)))
    weighted = [frame.b_value is not None and frame.b_value > 50 for frame in frames]
    if any(b and not iso for b, iso in zip(weighted, isotropic, strict=True)):
        # A trace beside the directions that it was made of: a map among originals.
        frames = [
            replace(frame, image_type=(*frame.image_type, "ISOTROPIC")) if b and iso else frame
            for frame, b, iso in zip(frames, weighted, isotropic, strict=True)
        ]
    return tuple(frames)


def _groups(sources: Iterable[Dataset]) -> list[Dataset]:
    """The functional groups of some data sets, and the item in which that of diffusion keeps its direction."""
    found = [item for source in sources for tag in _GROUPS if (item := _item(source, tag)) is not None]
    return [*found, *(item for group in found if (item := _item(group, _GRADIENT_DIRECTION)) is not None)]


def _item(dataset: Dataset, tag: int) -> Dataset | None:
    """The only item of a sequence."""
    value = tags.raw_value(dataset, tag)
    try:
        item: Dataset | None = value[0] if value else None
    except (TypeError, IndexError, KeyError):
        return None
    return item


def _frame(number: int, sources: list[Dataset]) -> Frame:
    """A frame from its functional groups, the shared ones, and the file's own elements, in this order."""
    groups = _groups(sources)
    everywhere = [*groups, *sources]

    def first(tag: int, length: int) -> Triple:
        found = (tags.numbers(item, tag) for item in everywhere)
        return next((value for value in found if len(value) == length), ())

    def one(tag: int) -> float | None:
        value = first(tag, 1)
        return value[0] if value else None

    echo_time = one(0x00189082)
    stack_position = one(0x00209057)
    slope, intercept = one(0x00281053), one(0x00281052)
    file_type = tags.words(sources[-1], 0x00080008)
    own_type = (tags.words(item, 0x00089007) for item in everywhere)
    return Frame(
        number=number,
        position=first(0x00200032, 3),
        orientation=first(0x00200037, 6),
        spacing=first(0x00280030, 2),
        b_value=frame_b_value(sources),
        direction=first(0x00189089, 3) or first(tags.SIEMENS_DIRECTION, 3),
        stack_position=None if stack_position is None else int(stack_position),
        stack=next((name for item in groups if (name := tags.text(item, 0x00209056))), ""),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        echo_time=echo_time if echo_time is not None else one(0x00180081),
        image_type=tuple(word for word in next(filter(None, own_type), ()) if word not in file_type),
        component=next((words[0] for item in everywhere if (words := tags.words(item, 0x00089208))), ""),
    )


def is_isotropic(sources: Iterable[Dataset]) -> bool:
    """Whether an image is weighted in no direction in particular; originals are weighted in one."""
    words = [next(iter(tags.words(item, 0x00189075)), "") for item in sources]
    words += [next(iter(tags.words(item, tags.PHILIPS_DIRECTION)), "") for item in sources]
    return bool({"ISOTROPIC", "I"} & set(words))
