"""Mappings out of YAML -> dataclasses, strictly: what is unknown, missing or of the wrong kind is named."""

import re
import types
from dataclasses import MISSING, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml


class NumberLoader(yaml.SafeLoader):
    """Reads YAML as its version 1.2 has it: 1e-3 is a number. PyYAML takes it for a text."""


NumberLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def build(cls, values, where: str):
    """Fills a dataclass.

    Args:
        cls: the dataclass.
        values: what stands in the file.
        where (`str`): file and place in it, for messages.

    Raises:
        ValueError: if `values` is no mapping, has an unknown key, lacks one, or holds something of the wrong kind; also
            with `where` put before it where the class itself refuses a value.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {type(values).__name__}, not a mapping.")
    known = {field.name: field for field in fields(cls) if field.init}
    if unknown := [str(key) for key in values if key not in known]:
        raise ValueError(f"{where}: unknown key {', '.join(sorted(unknown))}; known are {', '.join(known)}.")
    needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"{where}: key {', '.join(missing)} is missing.")
    kinds = get_type_hints(cls)
    for name, value in values.items():
        if not _is_of(value, kinds[name]):
            raise ValueError(f"{where}: key {name} is {value!r}; it should be {_kind_name(kinds[name])}.")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _is_of(value, kind) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return True
    if origin in (Union, types.UnionType):
        return any(_is_of(value, option) for option in arguments)
    if origin is list:
        return isinstance(value, list) and all(_is_of(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _is_of(key, arguments[0]) and _is_of(item, arguments[1]) for key, item in value.items()
        )
    if kind in (int, float):  # YAML's true is no number
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    return isinstance(value, kind)


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "nothing"}


def _kind_name(kind) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind_name(option) for option in arguments if option is not type(None))
    if origin is list:
        return f"a list of which each is {_kind_name(arguments[0])}"
    if origin is dict:
        return f"a mapping to {_kind_name(arguments[1])}"
    return _NAMES.get(kind, getattr(kind, "__name__", "anything"))
