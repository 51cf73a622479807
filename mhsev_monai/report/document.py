"""What a report says, apart from how it looks: sections of blocks that each form of the report renders in its way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

NOT_COMPUTED, UNDEFINED, UNDETERMINED = "not computed", "undefined", "not determined"
"""Why a number is not there: nobody computed it, the cases do not define it, or they do not tell how sure it is."""

PNG_ADDRESS = "data:image/png;base64,"


@dataclass(frozen=True)
class Number:
    """A number for eyes and machines.

    Attributes:
        value: None or not finite where there is none.
        digits: after the decimal point, for the eye.
        low: lower end of its 95 % interval, where it has one.
        high: upper end.
        missing: what to say where there is no value.
        no_ends: what to say of the interval where there is none.
        is_p: a p-value: one that would be rounded to 0 is printed as smaller than the smallest that is not.
    """

    value: float | None
    digits: int = 3
    low: float | None = None
    high: float | None = None
    missing: str = NOT_COMPUTED
    no_ends: str = NOT_COMPUTED
    is_p: bool = False

    @property
    def shown(self) -> str:
        """The number as it is printed, without its interval."""
        if self.value is None or not self.known:
            return self.missing
        least = 10.0**-self.digits
        return f"<{least:.{self.digits}f}" if self.is_p and self.value < least else rounded(self.value, self.digits)

    @property
    def known(self) -> bool:
        """Whether there is a number to print."""
        return self.value is not None and math.isfinite(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether both ends are numbers to print."""
        return all(end is not None and math.isfinite(end) for end in (self.low, self.high))

    @property
    def tells_ends(self) -> bool:
        """Whether something is printed of its interval: the ends, or that the cases do not determine them."""
        return self.known and (self.has_interval or self.no_ends == UNDETERMINED)

    def ends(self) -> Interval:
        """Its interval by itself."""
        if self.has_interval:
            return Interval(self.low, self.high, self.digits)
        return Interval(None, None, self.digits, self.no_ends)


@dataclass(frozen=True)
class Interval:
    """Both ends of an interval in a column of its own; None, and the reason, where there is none."""

    low: float | None
    high: float | None
    digits: int = 3
    missing: str = NOT_COMPUTED

    @property
    def known(self) -> bool:
        """Whether both ends are numbers to print."""
        return all(end is not None and math.isfinite(end) for end in (self.low, self.high))


@dataclass(frozen=True)
class Named:
    """The head of a row with a word of explanation below."""

    name: str
    note: str = ""
    strong: bool = False


Cell = str | int | Number | Interval | Named | None
"""None is "not computed"."""


@dataclass(frozen=True)
class Column:
    """A column: its head, its unit or what it means, and whether it holds words."""

    title: str
    note: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Text. ``lead`` is printed bold before it; ``style`` is "plain", "soft", "verdict" or "warning"."""

    kind: ClassVar[str] = "paragraph"
    text: str
    lead: str = ""
    style: str = "plain"


@dataclass(frozen=True)
class Bullets:
    """A list."""

    kind: ClassVar[str] = "list"
    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and values, in their order; None is "not computed"."""

    kind: ClassVar[str] = "facts"
    items: Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its head. Without rows it says ``empty``.

    Raises:
        ValueError: if a row is not as long as the columns.
    """

    kind: ClassVar[str] = "table"
    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    empty: str = NOT_COMPUTED

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"rows of table {self.id} must have {len(self.columns)} cells, got {len(wrong[0])}")


@dataclass(frozen=True)
class Drawing:
    """A figure that was drawn here: its SVG with title and description, and a caption. None says "not computed"."""

    kind: ClassVar[str] = "figure"
    id: str
    svg: Markup | None
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture as an inline PNG.

    Raises:
        ValueError: if it is not inline: a report loads nothing from anywhere.
    """

    kind: ClassVar[str] = "picture"
    png: str
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.png.startswith(PNG_ADDRESS):
            raise ValueError(f"a picture must be an inline picture that begins with {PNG_ADDRESS}")


@dataclass(frozen=True)
class Tile:
    """A number that is to be seen first: its name, the number or word, and short lines below."""

    name: str
    big: Number | str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Tiles:
    """Tiles in a row."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Card:
    """A case: its picture, a title, and blocks below."""

    kind: ClassVar[str] = "card"
    title: str
    note: str
    picture: Picture | None
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Panel:
    """A framed part with a title of its own."""

    kind: ClassVar[str] = "panel"
    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Beside:
    """Groups of blocks that stand beside each other where there is room; ``style`` is "two", "first" or "stack"."""

    kind: ClassVar[str] = "beside"
    groups: Sequence[Sequence[Block]]
    style: str = "two"


Block = Heading | Paragraph | Bullets | Facts | Table | Drawing | Picture | Tiles | Card | Panel | Beside


@dataclass(frozen=True)
class Section:
    """A part of the report with an entry in its contents; ``id`` is of letters, digits and hyphens."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        kind: "run", "scan" or "model card".
        title: of the whole.
        subtitle: a line below it.
        warnings: (what to print bold, the rest), before everything else.
        opening: blocks before the contents.
        sections: in their order.
        footer: on every page of a PDF.
        short: of a few pages, so that there are no contents.
    """

    kind: str
    title: str
    subtitle: str
    warnings: Sequence[tuple[str, str]]
    opening: Sequence[Block] = ()
    sections: Sequence[Section] = ()
    footer: str = ""
    short: bool = field(default=False)


def text_of(cell: Cell, between: str = " to ") -> str:
    """A cell as one line of text."""
    if cell is None or cell == "":
        return NOT_COMPUTED
    if isinstance(cell, Named):
        return cell.name
    if isinstance(cell, Interval):
        ends = (cell.low, cell.high)
        return (
            between.join(rounded(end, cell.digits) for end in ends if end is not None) if cell.known else cell.missing
        )
    if isinstance(cell, Number):
        if not cell.known:
            return cell.missing
        own = cell.shown
        return f"{own} ({text_of(cell.ends(), between)})" if cell.tells_ends else own
    return str(cell)


def p_value(value: float | None) -> Number:
    """A p-value; None where there is none."""
    return Number(value, 4, is_p=True)


def rounded(value: float, digits: int) -> str:
    """A finite number with so many digits; a zero has no sign."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text
