"""Configuration: strict, frozen settings and a YAML loader that reports every mistake at once.

    text -> `parse` -> Document (data + the place of every key) -> `assign` overrides -> `validate` -> model

A finding reads ``file:line:column: path: message; did you mean 'x'?``. The YAML understood is the core
schema of YAML 1.2: ``on`` and ``no`` are strings, ``010`` is ten, ``1e-3`` is a float, ``200_000`` an
integer; duplicate keys are errors.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from policylab.errors import ConfigError, did_you_mean

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

MAX_NODES = 20_000
"""Most YAML nodes one document may expand to; stops alias bombs."""


class Settings(BaseModel):
    """Base of every settings model: unknown keys are errors, values are frozen, NaN is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """Plain data and, for each key path in it, the place a message should name."""

    data: dict[str, Any]
    places: Mapping[KeyPath, str]
    source: str

    def place(self, path: KeyPath) -> str:
        """Return the place of ``path``, or of its nearest ancestor that has one."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.places.get((), self.source)

    def leaves(self, *path: str | int) -> Iterator[tuple[KeyPath, Any]]:
        """Yield the path and value of everything at or below ``path`` that is neither a mapping nor a list.

        >>> list(parse("env: {id: Taxi-v3, kwargs: {}}", "x.yaml").leaves("env"))
        [(('env', 'id'), 'Taxi-v3')]
        """
        value: Any = self.data
        for part in path:
            value = value[part]
        if isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(len(value)):
                yield from self.leaves(*path, key)
        else:
            yield path, value


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)).replace("_", ""))


_CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9][0-9_]*$", list("-+0123456789")),
    ("float", r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", list("-+.")),
    ("merge", r"^<<$", ["<"]),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _load_yaml(text: str, source: str) -> tuple[yaml.Node | None, Any]:
    try:
        loader = _CoreLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        for _ in _walk(node, (), source=source):
            pass  # refuses alias bombs and duplicate keys before anything is built from them
        return node, loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply; an anchor that contains itself?") from None


def _walk(node: yaml.Node, path: KeyPath, *, source: str) -> Iterator[tuple[KeyPath, str]]:
    """Yield (path, place) of every node, in document order; raise on duplicate keys."""
    stack: list[tuple[yaml.Node, KeyPath, yaml.Mark]] = [(node, path, node.start_mark)]
    for _ in range(MAX_NODES):
        if not stack:
            return
        node, path, mark = stack.pop()
        yield path, f"{source}:{mark.line + 1}:{mark.column + 1}"
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                at = f"{source}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
                if not isinstance(key, yaml.ScalarNode):
                    raise ConfigError(f"{at}: {_dotted(path)}: a key must be a plain word")
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise ConfigError(f"{at}: {_dotted((*path, key.value))}: duplicate key; keep one of the two")
                seen.add(key.value)
                stack.append((value, (*path, key.value), key.start_mark))
        elif isinstance(node, yaml.SequenceNode):
            stack.extend((item, (*path, i), item.start_mark) for i, item in enumerate(node.value))
    raise ConfigError(f"{source}: more than {MAX_NODES} values; shorten it or remove nested aliases")


def parse(text: str, source: str) -> Document:
    """Parse YAML ``text`` whose name in messages is ``source``.

    Raises:
        ConfigError: not YAML, not a mapping, a duplicate key, or an alias bomb.

    >>> parse("env: {id: Taxi-v3}", "x.yaml").places[("env", "id")]
    'x.yaml:1:7'
    """
    node, data = _load_yaml(text, source)
    if not isinstance(data, dict):
        kind = "empty" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{source}:1:1: expected a mapping of settings, got {kind}; see `policylab show frozenlake`")
    assert node is not None
    return Document(data=data, places=dict(_walk(node, (), source=source)), source=source)


def assign(document: Document, assignments: Sequence[str]) -> Document:
    """Return ``document`` with each ``path=value`` put in; the value is read as YAML.

    A key that holds dots itself is found where the document has it; a new one stands in brackets.

    >>> assign(parse("a: {b: 1}", "x"), ["a.b=2", "a.c=[1e-3]"]).data
    {'a': {'b': 2, 'c': [0.001]}}
    >>> assign(parse("a: {b.c: {d: 1}}", "x"), ["a.b.c.d=2", "a[b.e].f=3"]).data
    {'a': {'b.c': {'d': 2}, 'b.e': {'f': 3}}}

    Raises:
        ConfigError: an assignment without ``=``, or a path through something that is not a mapping or list.
    """
    data, places = _copy(document.data), dict(document.places)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        place = f"--set {assignment}"
        path = _key_path(data, dotted.strip())
        if not equals or not path:
            raise ConfigError(f"{place}: expected path=value, such as agent.discount=0.95")
        put(data, path, value=_load_yaml(text, place)[1], place=place)
        for known in [known for known in places if known[: len(path)] == path]:
            del places[known]
        places[path] = place
    return Document(data=data, places=places, source=document.source)


def _key_path(data: Any, dotted: str) -> KeyPath:
    """Return the keys of a path in words: the longest that the data has, else what stands between dots."""
    parts = [bracketed or plain for bracketed, plain in re.findall(r"\[([^\]]+)\]|([^.\[\]]+)", dotted)]
    path: list[str | int] = []
    while parts:
        joined = (n for n in range(len(parts), 1, -1) if isinstance(data, dict) and ".".join(parts[:n]) in data)
        n = next(joined, 1)
        key: str | int = ".".join(parts[:n])
        parts = parts[n:]
        if isinstance(data, list) and str(key).isdigit():
            key = int(key)
            data = data[key] if key < len(data) else None
        else:
            data = data.get(key) if isinstance(data, dict) else None
        path.append(key)
    return tuple(path)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def put(data: Any, path: KeyPath, *, value: Any, place: str) -> None:
    """Set the value at ``path`` of nested mappings and lists, making mappings on the way.

    Raises:
        ConfigError: the path leads through a plain value; the message begins with ``place``.

    >>> data = {"agent": {"discount": 0.9}}
    >>> put(data, ("agent", "exploration", "kind"), value="greedy", place="--set")
    >>> data
    {'agent': {'discount': 0.9, 'exploration': {'kind': 'greedy'}}}
    """
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            pass
        elif isinstance(data, dict):
            part = str(part)
            if not last and data.get(part) is None:
                data[part] = {}
        else:
            raise ConfigError(f"{place}: {_dotted(path[:depth])} is not a mapping; it cannot hold '{part}'")
        if last:
            data[part] = value
        else:
            data = data[part]


def validate(model: type[Model], document: Document) -> Model:
    """Return ``document`` as a ``model``.

    Raises:
        ConfigError: every finding, one per line.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        schema = model.model_json_schema()
        findings = [_finding(document, found, schema=schema) for found in error.errors() if not _follows(found)]
        raise ConfigError("\n".join(dict.fromkeys(findings))) from None


def read(path: Path) -> Document:
    """Read the YAML file at ``path``.

    Raises:
        ConfigError: the file cannot be read, or any finding of `parse`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    return parse(text, str(path))


def load(model: type[Model], path: Path, *, overrides: Sequence[str] = ()) -> Model:
    """Read the YAML file at ``path``, apply ``overrides`` (``a.b=c``) and validate it as ``model``.

    Raises:
        ConfigError: the file cannot be read, or any finding of `parse`, `assign` or `validate`.
    """
    return validate(model, assign(read(path), overrides))


def _finding(document: Document, found: Mapping[str, Any], *, schema: dict[str, Any]) -> str:
    path = data_path(document.data, found)
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(schema, document.data, path=path[:-1])
        message = "unknown key" + (did_you_mean(str(path[-1]), known) or f"; known: {', '.join(known)}")
        if path[-1] in known:
            message = "belongs to another kind than the one that is set beside it; set that kind, too"
    elif kind == "missing":
        message = "required, but missing"
    elif kind == "union_tag_invalid":
        known = re.findall(r"'([^']+)'", context["expected_tags"])
        path = (*path, str(context["discriminator"]).strip("'"))
        hint = did_you_mean(str(context["tag"]), known)
        message = f"unknown kind '{context['tag']}'{hint} (known: {', '.join(known)})"
    elif kind == "union_tag_not_found":
        path, message = (*path, str(context["discriminator"]).strip("'")), "required, but missing"
    elif kind in ("too_long", "too_short"):
        word, bound = ("most", context["max_length"]) if kind == "too_long" else ("least", context["min_length"])
        message = f"must have at {word} {bound} entr{'y' if bound == 1 else 'ies'}, got {context['actual_length']}"
    else:
        message = re.sub(r"^(Value|Assertion) error, ", "", found["msg"])
        if kind in ("model_attributes_type", "model_type", "dict_type"):
            message = "expected a mapping of settings" + ", such as {kind: ...}" * (kind == "model_attributes_type")
        if kind in ("list_type", "tuple_type"):
            message = "expected a list"
        if not isinstance(found.get("input"), dict | list) and ", got " not in message:
            message += f", got {found.get('input')!r}"
    return f"{document.place(path)}: {_dotted(path)}: {message}"


def _follows(found: Mapping[str, Any]) -> bool:
    """Return whether a finding only follows from others: pydantic calls a list too short whose items are wrong."""
    return bool(found["type"] == "too_short" and len(found["input"]) >= found["ctx"]["min_length"])


def data_path(data: Any, found: Mapping[str, Any]) -> KeyPath:
    """Drop from a pydantic location the union tags that are not keys of the data."""
    path: list[str | int] = []
    for position, part in enumerate(found["loc"]):
        held = isinstance(data, dict) and part in data
        if held or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]
            path.append(part)
        elif position == len(found["loc"]) - 1 and found["type"] == "missing":
            path.append(part)
    return tuple(path)


def _known_keys(schema: dict[str, Any], data: Any, *, path: KeyPath) -> list[str]:
    """Return the keys the JSON schema allows at ``path``, choosing union members by the data's tag."""
    nodes = _resolve(schema, schema, data=data)
    for part in path:
        data = data[part]
        below = [
            node.get("properties", {}).get(part, node.get("items", node.get("additionalProperties"))) for node in nodes
        ]
        nodes = [leaf for node in below if isinstance(node, dict) for leaf in _resolve(schema, node, data=data)]
    return sorted({key for node in nodes for key in node.get("properties", {})})


def _resolve(root: dict[str, Any], node: dict[str, Any], *, data: Any) -> list[dict[str, Any]]:
    if "$ref" in node:
        return _resolve(root, root["$defs"][node["$ref"].rsplit("/", 1)[-1]], data=data)
    tag = node.get("discriminator", {})
    if tag and isinstance(data, dict) and data.get(tag["propertyName"]) in tag["mapping"]:
        return _resolve(root, {"$ref": tag["mapping"][data[tag["propertyName"]]]}, data=data)
    members = [member for word in ("oneOf", "anyOf", "allOf") for member in node.get(word, [])]
    return [leaf for member in members for leaf in _resolve(root, member, data=data)] or [node]


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path)) or "(document)"
