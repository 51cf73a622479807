"""Reads nested frozen dataclasses from YAML or TOML; each mistake is one sentence that names the key.

What a key may hold follows from its field: the type, and in the field's metadata ``least`` and ``most`` (numbers) or
``one_of`` (words). A field without a default must be in the file. Keys that no field knows are refused, since a
misspelled limit would otherwise be no limit.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration cannot be used; the message is for the person who wrote it."""


def number(default: float, least: float, most: float) -> Any:
    """A field with a default and a closed range."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


def word(default: str, *one_of: str) -> Any:
    """A field that holds one of some words."""
    return dataclasses.field(default=default, metadata={"one_of": one_of})


def read_file(path: Path) -> dict[str, Any]:
    """The mapping in a .yaml, .yml or .toml file.

    Raises:
        ConfigError: if there is no such file, it does not parse, or holds something else.
    """
    import yaml

    if path.suffix not in (".yaml", ".yml", ".toml"):
        raise ConfigError(f"{path.name} must end in .yaml, .yml or .toml, so that its form is known")
    try:
        text = path.read_text(encoding="utf-8")
        held = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); name another file with --config") from error
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise ConfigError(f"{path.name} is not valid {path.suffix[1:]}: {what}") from error
    if not isinstance(held, dict):
        raise ConfigError(f"{path.name} must hold keys and values, got {type(held).__name__}")
    return held


def build(kind: type[T], held: Any, where: str = "") -> T:
    """One dataclass from a mapping.

    Args:
        kind: a dataclass.
        held: what the file has at this place.
        where: the dotted key of this place, for messages.

    Raises:
        ConfigError: for the first key that is unknown, absent, or holds what it must not.
    """
    if not isinstance(held, dict):
        raise ConfigError(f"{where or 'the file'} must hold keys and values, got {_shown(held)}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for key in held:
        if key not in fields:
            raise ConfigError(f"{_join(where, key)} is not known; {where or 'the file'} may have {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, field in fields.items():
        place = _join(where, name)
        if name in held:
            values[name] = _value(hints[name], held[name], place, field.metadata)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{place} is absent; add it")
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _shown(held: Any) -> str:
    return "nothing" if held is None else f"{held!r} ({type(held).__name__})"


def _value(hint: Any, held: Any, place: str, metadata: typing.Mapping[str, Any]) -> Any:
    if isinstance(hint, types.UnionType):
        if held is None:
            return None
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), held, place)
    if typing.get_origin(hint) is tuple:
        return _several(typing.get_args(hint)[0], held, place)
    if hint is Path:
        return Path(_text(held, place)).expanduser()
    if hint is str:
        return _word(held, place, metadata.get("one_of"))
    if hint is bool:
        if not isinstance(held, bool):
            raise ConfigError(f"{place} must be true or false, got {_shown(held)}")
        return held
    return _number(hint, held, place, metadata)


def _several(hint: Any, held: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(held, list):
        raise ConfigError(f"{place} must be a list, got {_shown(held)}")
    return tuple(_value(hint, one, f"{place}[{number}]", {}) for number, one in enumerate(held))


def _text(held: Any, place: str) -> str:
    if not isinstance(held, str) or not held.strip():
        raise ConfigError(f"{place} must be a text, got {_shown(held)}; put it in quotes")
    return held


def _word(held: Any, place: str, one_of: tuple[str, ...] | None) -> str:
    text = _text(held, place)
    if one_of is not None and text not in one_of:
        raise ConfigError(f"{place} must be one of {', '.join(one_of)}, got {text!r}")
    return text


def _number(hint: Any, held: Any, place: str, metadata: typing.Mapping[str, Any]) -> int | float:
    kinds, name = ((int,), "a whole number") if hint is int else ((int, float), "a number")
    if isinstance(held, bool) or not isinstance(held, kinds):
        raise ConfigError(f"{place} must be {name}, got {_shown(held)}")
    least, most = metadata.get("least", float("-inf")), metadata.get("most", float("inf"))
    if not least <= held <= most:
        raise ConfigError(f"{place} must be between {least} and {most}, got {held}")
    return hint(held)
