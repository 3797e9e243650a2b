"""YAML files of data sets: plain values only, and nothing is executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ..contract.errors import HandclrError

_TAG = "tag:yaml.org,2002:"
_FIRST = list("-+.0123456789")
# libyaml's loader recurses without a limit: a file of brackets would crash the process.
_DEEPEST = 100


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader with fewer kinds of values.

    YAML 1.1 reads 0123 as octal, 1:30 as 90, `on` as true and 1e-3 as text, and knows dates. Here
    numbers are decimal, 1e-3 is one, and everything else is text.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}
    yaml_constructors: dict[str | None, Any] = {}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Numbers are decimal, `1e-3` too; an empty value is None; any other plain value is text, and so
    are keys. Python's tuples, as DexYCB has them, become lists. Raises HandclrError where the file
    cannot be read, is no mapping, has a key twice, or needs more of YAML than that.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise HandclrError(f"{path} is missing; unpack it there") from error
    except (OSError, UnicodeDecodeError) as error:
        raise HandclrError(f"cannot read {path}: {error}") from error
    try:
        _check_structure(text)
        # The loader makes plain values only: see its constructors.
        found = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise HandclrError(f"{path}: {_what_is_wrong(error)}; unpack it again") from error
    if not isinstance(found, dict):
        raise HandclrError(f"{path}: holds no mapping; unpack it again")
    return found


def _check_structure(text: str) -> None:
    """Raise ValueError for a file that is nested too deeply, or has an alias."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        line = event.start_mark.line + 1
        if depth > _DEEPEST:
            raise ValueError(f"line {line}: nested too deeply")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line}: has an alias, which is not supported")


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _mapping(loader: Any, node: Any) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise _misfit("expected a mapping", node)
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _misfit("a key is not text", key)
        if key.value in found:
            raise _misfit(f"the key {key.value} comes twice", key)
        found[key.value] = loader.construct_object(value, deep=True)
    return found


def _list(loader: Any, node: Any) -> list[Any]:
    return list(loader.construct_sequence(node, deep=True))


def _misfit(problem: str, node: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _integer(loader: Any, node: Any) -> int:
    return int(loader.construct_scalar(node))


def _number(loader: Any, node: Any) -> float:
    return float(loader.construct_scalar(node))


def _nothing(loader: Any, node: Any) -> None:
    loader.construct_scalar(node)


_Loader.add_constructor(f"{_TAG}map", _mapping)
_Loader.add_constructor(f"{_TAG}seq", _list)
_Loader.add_constructor(f"{_TAG}python/tuple", _list)
_Loader.add_constructor(f"{_TAG}str", yaml.SafeLoader.construct_yaml_str)
_Loader.add_constructor(f"{_TAG}int", _integer)
_Loader.add_constructor(f"{_TAG}float", _number)
_Loader.add_constructor(f"{_TAG}null", _nothing)
_Loader.add_constructor(None, yaml.SafeLoader.construct_undefined)
# The first pattern that matches decides.
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(r"[-+]?[0-9]+\Z"), _FIRST)
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\Z"),
    _FIRST,
)
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile(r"\Z"), [""])
