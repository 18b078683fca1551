"""Flattens an OpenAPI document into facts, so that two documents can be compared.

A fact is the name of a place, such as ``updateDeviceStatus answer 202`` or ``PrintDevice.id``, and what the document
says there. A key without a name in this module keeps its own name and its JSON, so that no change is lost.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_PROSE = ("title", "summary", "description")
# Examples are data, and tags only group the documentation.
_LEFT_OUT = {*_PROSE, "example", "examples", "externalDocs", "tags", "operationId"}
_TYPE_KEYS = {"type", "format", "$ref", "items", "enum", "const", "properties", "required"}
Facts = dict[str, str]


def facts(document: dict[str, Any]) -> Facts:
    """Return the facts of a document, in its order."""
    return dict(_document(document))


def _document(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    components = document.get("components", {})
    yield "OpenAPI", str(document.get("openapi"))
    info = document.get("info", {})
    yield "version", str(info.get("version"))
    yield from _prose("API", info)
    for server in document.get("servers", []):
        yield f"server {server.get('url')}", _one_line(server.get("description", ""))
    if "security" in document:
        yield "security", _json(document["security"])
    for name, scheme in components.get("securitySchemes", {}).items():
        yield f"security scheme {name}", _json(_resolved(document, scheme))
    for path, item in document.get("paths", {}).items():
        for method in METHODS:
            if method in item:
                yield from _operation(document, path, method, item)
    for name, schema in components.get("schemas", {}).items():
        yield from _schema(name, schema)
    named = {"openapi", "info", "servers", "security", "paths", "components", "tags", "externalDocs"}
    for key in document.keys() - named:
        yield key, _json(document[key])


def _operation(
    document: dict[str, Any], path: str, method: str, item: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    operation = item[method]
    name = operation.get("operationId", f"{method.upper()} {path}")
    yield f"{name} method", method.upper()
    yield f"{name} path", path
    yield from _prose(name, operation)
    for node in [*item.get("parameters", []), *operation.get("parameters", [])]:
        parameter = _resolved(document, node)
        where = f"{name} parameter {parameter['name']} ({parameter['in']})"
        yield from _schema(where, parameter.get("schema", {}))
        yield from _prose(where, parameter)
        if parameter.get("required"):
            yield f"{where} required", "yes"
        yield from _rest(where, parameter, {"name", "in", "schema", "required"})
    if "requestBody" in operation:
        body = _resolved(document, operation["requestBody"])
        yield from _content(f"{name} body", body)
        if body.get("required"):
            yield f"{name} body required", "yes"
    for code, node in operation.get("responses", {}).items():
        answer = _resolved(document, node)
        yield from _content(f"{name} answer {code}", answer)
        for header, value in answer.get("headers", {}).items():
            schema = _resolved(document, value).get("schema", {})
            yield from _schema(f"{name} answer {code} header {header}", schema)
    known = {"parameters", "requestBody", "responses"}
    yield from _rest(name, {**operation, "path servers": item.get("servers")}, known)


def _content(where: str, holder: dict[str, Any]) -> Iterator[tuple[str, str]]:
    content = holder.get("content") or {}
    types = (f"{media_type} {_type(media.get('schema', {}))}" for media_type, media in content.items())
    yield where, ", ".join(types) or "no content"
    yield from _prose(where, holder)
    for media in content.values():
        yield from _inside(where, media.get("schema", {}))


def _schema(where: str, schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield where, _type(schema)
    yield from _prose(where, schema)
    yield from _inside(where, schema)


def _inside(where: str, schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for word in schema.get("enum", []):
        yield f"{where} word {word}", "allowed"
    for name, node in schema.get("properties", {}).items():
        yield from _schema(f"{where}.{name}", node)
        if name in schema.get("required", []):
            yield f"{where}.{name} required", "yes"
    items = schema.get("items")
    if isinstance(items, dict) and items.keys() - {"type"}:
        yield from _inside(f"{where}[]", items)
    if schema.get("additionalProperties") is False:
        yield f"{where} closed", "no other properties"
        schema = {key: value for key, value in schema.items() if key != "additionalProperties"}
    yield from _rest(where, schema, _TYPE_KEYS)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return f"only {_json(schema['const'])}"
    declared = schema.get("type", "any")
    text = " or ".join(declared) if isinstance(declared, list) else str(declared)
    if text == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return f"{text} ({schema['format']})" if "format" in schema else text


def _prose(where: str, node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key in _PROSE:
        if isinstance(node.get(key), str):
            yield f"{where} {key}", _one_line(node[key])


def _rest(where: str, node: dict[str, Any], known: set[str]) -> Iterator[tuple[str, str]]:
    for key in sorted(node.keys() - known - _LEFT_OUT):
        if node[key] is not None:
            yield f"{where} {key}", _json(node[key])


def _resolved(document: dict[str, Any], node: Any) -> Any:
    while isinstance(node, dict) and isinstance(node.get("$ref"), str):
        node = pointed_to(document, node["$ref"])
    return node


def pointed_to(document: dict[str, Any], reference: str) -> Any:
    """Resolve a reference such as ``#/components/schemas/PrintDevice``; return None if it points nowhere."""
    target: Any = document
    for part in reference.removeprefix("#/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        target = target.get(name) if isinstance(target, dict) else None
    return target


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _one_line(text: str) -> str:
    return " ".join(str(text).split())
