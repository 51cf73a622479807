"""Forms that a value in a message may have. Pure checks; what they say of a value never holds the value.

Types are exact, since an object of a derived class can carry anything beside what it looks like. A key that is not
known is not named either: a programming error can make a patient's name a key as well as a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

_LARGEST = 2**53
"""Whole numbers beyond it are no counts; a text can be written as one long number."""


class Form(Protocol):
    """What a value may be; called with a value, it says what is wrong with it."""

    def __call__(self, value: Any) -> str:
        """What is wrong with ``value``, without any of its content; empty where nothing is."""
        ...


def kind_of(value: Any) -> str:
    """What a value is, by type and size; the name of a type that is not listed here could hold anything."""
    if type(value) is np.ndarray:
        return f"an array of dtype kind {value.dtype.kind} and {value.dtype.itemsize} bytes an entry"
    if type(value) is str:
        return f"a text of {len(value)} characters"
    if type(value) is dict:
        return f"a mapping of {len(value)} entries"
    if type(value) is list:
        return f"a list of {len(value)} entries"
    known = {bool: "a truth value", int: "a whole number", float: "a number", type(None): "nothing", bytes: "bytes"}
    return known.get(type(value), "an object of a kind that is not on the list")


def size_in_bytes(value: Any) -> int:
    """Bytes that the numbers, texts and keys of a value take, nested ones included; 8 for whatever else there is."""
    if type(value) is np.ndarray:
        return int(value.nbytes)
    if type(value) in (str, bytes):
        return len(value)
    if type(value) is list:
        return sum(map(size_in_bytes, value))
    if type(value) is dict:
        return sum(size_in_bytes(key) + size_in_bytes(entry) for key, entry in value.items())
    return 8


@dataclass(frozen=True)
class Number:
    """One number, not a truth value; ``whole``: without a fraction, and from 0 to 2^53."""

    whole: bool = False

    def __call__(self, value: Any) -> str:
        """Whether it is such a number; one of a derived class is none."""
        if type(value) is float and not self.whole:
            return ""
        if type(value) is not int:
            return f"is {kind_of(value)} where a {'whole ' if self.whole else ''}number is expected"
        inside = (0 if self.whole else -_LARGEST) <= value <= _LARGEST
        return "" if inside else "is a whole number outside the range of counts"


@dataclass(frozen=True)
class Text:
    """A text that matches ``pattern`` from end to end, of at most ``longest`` characters."""

    pattern: re.Pattern[str]
    longest: int = 64

    def __call__(self, value: Any) -> str:
        """Whether it is a text of this form."""
        if type(value) is not str:
            return f"is {kind_of(value)} where a text is expected"
        fits = len(value) <= self.longest and self.pattern.fullmatch(value)
        return "" if fits else f"is {kind_of(value)} of another form than is expected"


def one_of(*words: str) -> Text:
    """One of these texts."""
    return Text(re.compile("|".join(map(re.escape, words))), max(map(len, words)))


@dataclass(frozen=True)
class Sentence:
    """Words of the language that this package's refusals are written in, and no others.

    Each word is in lower case, a short number, or matches ``names``. Names of people are written with capitals, dates
    and patient numbers have more digits, paths have slashes; none of them passes. A name in lower case would.

    Args:
        names: pattern of further words that pass.
        site: this site's own name, which passes too.
        longest: characters.
    """

    names: re.Pattern[str]
    site: str = ""
    longest: int = 400

    def __call__(self, value: Any) -> str:
        """Whether all its words are known; it is not said which are not."""
        if type(value) is not str:
            return f"is {kind_of(value)} where a sentence is expected"
        if len(value) > self.longest:
            return f"is {kind_of(value)} where {self.longest} are the most"
        text = value.replace(self.site, "site") if self.site else value
        words = [word.strip(".,;:()'\"`{}") for word in text.split()]
        odd = sum(not self._is_known(word) for word in words)
        return f"is {kind_of(value)} with {odd} of {len(words)} words that may hold anything" if odd else ""

    def _is_known(self, word: str) -> bool:
        return not word or bool(self.names.fullmatch(word) or _WORD.fullmatch(word))


# Lower-case words, joined by hyphens; numbers of up to five digits; BIDS entities with a number; exceptions by type.
_WORD = re.compile(
    r"[a-z]{1,20}('s|s')?(-[a-z]{1,12}|-[0-9]{1,3})*|[0-9]{1,5}(\.[0-9]{1,4})?%?|(sub|ses)-[0-9]{1,5}"
    r"(_ses-[0-9]{1,5})?(_sessions\.tsv)?|[0-9]-D|(OS|Permission|FileNotFound|IsADirectory|NotADirectory|Timeout)Error"
)


@dataclass(frozen=True)
class AnyOf:
    """A value of one of several forms."""

    forms: tuple[Form, ...]

    def __call__(self, value: Any) -> str:
        """What the first form has against it, if all have something."""
        complaints = [form(value) for form in self.forms]
        return "" if "" in complaints else complaints[0]


@dataclass(frozen=True)
class Nothing:
    """No value."""

    def __call__(self, value: Any) -> str:
        """Whether it is None."""
        return "" if value is None else f"is {kind_of(value)} where nothing is expected"


@dataclass(frozen=True)
class Entries:
    """A list, or a list of such lists, whose innermost entries all have one form."""

    form: Form

    def __call__(self, value: Any) -> str:
        """What is wrong with the first wrong entry, by its position."""
        if type(value) is not list:
            return f"is {kind_of(value)} where a list is expected"
        for position, entry in enumerate(value, start=1):
            complaint = self(entry) if type(entry) is list else self.form(entry)
            if complaint:
                return f"has an entry, {position} of {len(value)}, that {complaint}"
        return ""


@dataclass(frozen=True)
class Array:
    """A NumPy array of plain numbers of one of these types."""

    dtypes: tuple[str, ...]

    def __call__(self, value: Any) -> str:
        """Whether it is an array of one of the types, without anything attached to the type."""
        # A dtype can carry free metadata, and an array of objects anything.
        plain = type(value) is np.ndarray and value.dtype.name in self.dtypes and value.dtype.metadata is None
        return "" if plain else f"is {kind_of(value)} where an array of {' or '.join(self.dtypes)} is expected"


@dataclass(frozen=True)
class Record:
    """A mapping with some or all of these keys and no others."""

    forms: Mapping[str, Form]

    def __call__(self, value: Any) -> str:
        """What is wrong with the first wrong entry, by its key if that is on the list."""
        if type(value) is not dict:
            return f"is {kind_of(value)} where a mapping is expected"
        for position, (key, entry) in enumerate(value.items(), start=1):
            if type(key) is not str or key not in self.forms:
                return f"has a key, {position} of {len(value)}, {kind_of(key)}, that is not on the list"
            complaint = self.forms[key](entry)
            if complaint:
                return f"has an entry {key} that {complaint}"
        return ""


@dataclass(frozen=True)
class NamedAlike:
    """A mapping whose keys match ``keys`` from end to end, and whose values all have one form."""

    keys: re.Pattern[str]
    form: Form

    def __call__(self, value: Any) -> str:
        """What is wrong with the first wrong entry, by its position."""
        if type(value) is not dict:
            return f"is {kind_of(value)} where a mapping is expected"
        for position, (key, entry) in enumerate(value.items(), start=1):
            if type(key) is not str or self.keys.fullmatch(key) is None:
                return f"has a key, {position} of {len(value)}, {kind_of(key)}, that is not on the list"
            complaint = self.form(entry)
            if complaint:
                return f"has an entry, {position} of {len(value)}, that {complaint}"
        return ""
