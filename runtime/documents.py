"""Frozen dataclasses from parsed JSON or TOML documents, and back. `spinescore.runtime.fields` has the rules.

Every error is a `ValueError` that starts with the dotted name of the field, so that the user finds the place at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from spinescore.runtime.fields import (
    INLINE,
    OPTIONAL,
    Keys,
    Length,
    OneOf,
    Within,
    Without,
    check_choice,
    check_keys,
    check_known,
    dotted,
    missing,
    shown,
)
from spinescore.runtime.text import number_of

__all__ = ["document_of", "document_sha256", "read"]

T = TypeVar("T")
Convert = Callable[[Any, str], Any]  # a value and its dotted name -> the value that the dataclass holds
Rules = tuple[Any, ...]


def read(kind: type[T], document: object, path: str = "", *, later_versions: bool = False) -> T:
    """Return a `kind`, a dataclass, from a parsed document; `path` is the dotted name of the document itself.

    With `later_versions` the document may be of another version: unknown fields are ignored, every default may be used,
    and only dataclasses, numbers, text, and fields with a rule or the mark `CHECKED` are checked. Raises `ValueError`.
    """
    return _dataclass(kind, later_versions, {})(document, path)  # type: ignore[no-any-return]


def document_of(value: Any) -> Any:
    """Return the JSON document of a dataclass, its `schema` first; the inverse of `read`."""
    if isinstance(value, Mapping):
        return {key: document_of(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [document_of(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    document: dict[str, Any] = {}
    for one in _fields_of(type(value), False):
        item = getattr(value, one.name)
        if one.inline:
            document |= document_of(item)
        elif one.needed or item != one.default:
            document[one.name] = document_of(item)
    return document


def document_sha256(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the document as JSON with sorted keys. Raises `ValueError` for NaN and infinities."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, allow_nan=False).encode()).hexdigest()


class _Field(NamedTuple):
    name: str
    convert: Convert
    needed: bool
    default: Any
    inline: type[Any] | None  # the dataclass whose fields stand in the same object


def _layout(kind: type[Any], later: bool) -> tuple[_Field, ...]:
    """The fields of a dataclass. `schema` comes first, so that a document of another schema is refused for that."""
    hints, fields = get_type_hints(kind, include_extras=True), []
    for one in sorted(dataclasses.fields(kind), key=lambda one: one.name != "schema"):
        marks = getattr(hints[one.name], "__metadata__", ())
        has_default = one.default is not dataclasses.MISSING or one.default_factory is not dataclasses.MISSING
        needed = not (has_default if later else OPTIONAL in marks)
        inline = get_args(hints[one.name])[0] if INLINE in marks else None
        convert = _converter(hints[one.name], (), later, needed or later)
        fields.append(_Field(one.name, convert, needed, one.default, inline))
    return tuple(fields)


_fields_of: Callable[[Any, bool], tuple[_Field, ...]] = cache(_layout)  # a class is no `Hashable` for mypy


def _names_of(kind: type[Any]) -> Iterator[str]:
    for one in _fields_of(kind, False):
        yield from _names_of(one.inline) if one.inline else (one.name,)


def _converter(hint: Any, rules: Rules, later: bool, may_be_null: bool = True) -> Convert:
    """Return the reader of values whose annotation is `hint`; `rules` are those that stand around it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _converter(inner[0], (*rules, *hint.__metadata__), later, may_be_null)
    if one_of := _rule(rules, OneOf):
        return _choice(one_of.values)
    if origin in (Union, types.UnionType):
        (some,) = (one for one in inner if one is not types.NoneType)
        convert = _converter(some, rules, later)
        return _or_null(convert) if may_be_null else convert
    if dataclasses.is_dataclass(hint):
        without = _rule(rules, Without)
        return _dataclass(hint, later, without.values if without else {})  # type: ignore[arg-type]
    if origin is Mapping:
        return _mapping(inner, rules, later)
    if origin is tuple:
        return _array(inner, rules, later)
    if later and not rules and hint is str:
        rules = (Length(0, math.inf),)
    if hint is Any or (later and not rules and hint not in (int, float)):
        return _as_it_is
    if origin is Literal or hint is bool:
        return _choice(inner or (True, False))
    return _text(rules) if hint is str else _number(hint, rules, later)


def _rule(rules: Rules, kind: type[T], default: T | None = None) -> T | None:
    return next((rule for rule in rules if isinstance(rule, kind)), default)


def _as_it_is(value: Any, path: str) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _or_null(convert: Convert) -> Convert:
    return lambda value, path: None if value is None else convert(value, path)


def _choice(values: tuple[Any, ...]) -> Convert:
    def convert(value: Any, path: str) -> Any:
        check_choice(value, values, path)
        return value

    return convert


def _dataclass(kind: type[Any], later: bool, fixed: Mapping[str, Any]) -> Convert:
    """The reader of a dataclass whose fields in `fixed` are not in the document."""

    def convert(value: Any, path: str) -> Any:
        left = _members(value, path)
        result = _taken(kind, left, path, later, fixed)
        if left and not later:
            check_known(left, [name for name in _names_of(kind) if name not in fixed], path)
        return result

    return convert


def _taken(kind: type[Any], left: dict[str, Any], path: str, later: bool, fixed: Mapping[str, Any]) -> Any:
    """Return a `kind` from its fields in `left`, and remove them there."""
    values = dict(fixed)
    for name, convert, needed, _, inline in _fields_of(kind, later):
        if name in fixed:
            continue
        if inline:
            values[name] = _taken(inline, left, path, later, {})
        elif name in left:
            values[name] = convert(left.pop(name), dotted(path, name))
        elif needed:
            raise missing(name, left, path)
    result = kind(**values)
    if hasattr(result, "_check_fields"):
        result._check_fields(path)
    return result


def _mapping(inner: tuple[Any, ...], rules: Rules, later: bool) -> Convert:
    """The reader of a mapping whose keys and items have the annotations `inner`."""
    convert_item = _converter(inner[1], (), later)
    keys = _rule(rules, Keys, Keys(*get_args(inner[0])) if get_origin(inner[0]) is Literal else None)
    if later and keys is None and convert_item is _as_it_is:
        return _as_it_is

    def convert(value: Any, path: str) -> dict[str, Any]:
        members = _members(value, path)
        if keys is not None:
            names = [name for name in keys.names if name in members]
            check_keys(members, keys.names if keys.least == len(keys.names) else names, path)
            if len(names) < keys.least:
                raise ValueError(f"{path}: expected at least one of {', '.join(keys.names)}")
            members = {name: members[name] for name in names}
        return {name: convert_item(item, dotted(path, name)) for name, item in members.items()}

    return convert


def _array(inner: tuple[Any, ...], rules: Rules, later: bool) -> Convert:
    """The reader of an array. `inner` has the annotation of each entry, or that of all entries and `...`."""
    any_length = inner[-1] is Ellipsis
    converters = [_converter(one, (), later) for one in inner if one is not Ellipsis]
    if later and not rules and all(convert is _as_it_is for convert in converters):
        return _as_it_is
    length = _rule(rules, Length) or (Length(0, math.inf) if any_length else Length(len(inner), len(inner)))

    def convert(value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{path}: expected an array, found {shown(value)}")
        if not length.least <= len(value) <= length.most:
            is_short = len(value) < length.least
            bound = "" if length.least == length.most else "at least " if is_short else "at most "
            count = length.least if is_short else length.most
            raise ValueError(f"{path}: expected {bound}{number_of(int(count), 'entry')}, found {len(value)}")
        each = zip(converters * len(value) if any_length else converters, value, strict=True)
        return tuple(convert_one(item, f"{path}[{place}]") for place, (convert_one, item) in enumerate(each))

    return convert


def _text(rules: Rules) -> Convert:
    length = _rule(rules, Length) or Length()

    def convert(value: Any, path: str) -> str:
        if not isinstance(value, str) or len(value) < length.least:
            expected = "text that is not empty" if length.least else "text"
            raise ValueError(f"{path}: expected {expected}, found {shown(value)}")
        if len(value) > length.most:
            raise ValueError(f"{path}: expected at most {length.most} characters, found {len(value)}")
        return value

    return convert


def _number(kind: type[int] | type[float], rules: Rules, later: bool) -> Convert:
    bounds = _rule(rules, Within) or Within()
    types, noun = ((int,), "a whole number") if kind is int else ((int, float), "a number")
    expected = f"{noun} {bounds}".rstrip()

    def convert(value: Any, path: str) -> float:
        if type(value) not in types or not bounds.low <= value <= bounds.high:
            hint = bounds.hint(value) if type(value) in types else ""
            raise ValueError(f"{path}: expected {expected}, found {shown(value)}{hint}")
        return value if later else kind(value)  # a report's whole totals stay whole numbers

    return convert


def _members(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{path or 'document'}: expected an object, found {shown(value)}")
    return dict(value)
