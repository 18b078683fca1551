"""Reads an OpenAPI document, and refuses one of which the generator would silently leave something out."""

from __future__ import annotations

import hashlib
import re
from email.message import Message
from typing import TYPE_CHECKING, Any

from attrs import frozen
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

from spec.codegen_facts import METHODS, pointed_to
from spec.codegen_tools import CodegenError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VALIDATORS = {"3.0": OpenAPIV30SpecValidator, "3.1": OpenAPIV31SpecValidator}
# Nodes that YAML aliases may add to a document: this module and the generator visit a node once for each alias.
_MAX_ALIASED_NODES = 100_000
_BODY_TYPES = {"application/octet-stream", "application/x-www-form-urlencoded", "multipart/form-data"}


@frozen
class Operation:
    """One operation of a specification."""

    operation_id: str
    method: str
    path: str


@frozen
class Specification:
    """A specification that passed every check.

    Attributes:
        name: The file's name without its folder, for the lock file, which must be the same on every machine.
        content: The file's bytes. They are read once, so that later changes of the file have no effect.
        document: The parsed content; all keys are text, as in JSON.
        operations: The operations, in the document's order.
    """

    name: str
    content: bytes
    document: dict[str, Any]
    operations: tuple[Operation, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the content, for the lock file."""
        return hashlib.sha256(self.content).hexdigest()


def read_specification(path: Path) -> Specification:
    """Read and check a specification.

    Args:
        path: An OpenAPI 3.0 or 3.1 document in YAML or JSON.

    Raises:
        CodegenError: It cannot be read, is not valid, or holds what the generator would leave out.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CodegenError(f"{path}: {error.strerror}") from error
    try:
        document = _parse(content)
        _check_version(document)
        _check_known_traps(document)
        _check_references(document)
        _validate(document)
        operations = _checked_operations(document)
    except RecursionError as error:
        raise CodegenError(f"{path}: nested too deeply") from error
    except CodegenError as error:
        raise CodegenError(f"{path}: {error}") from error
    return Specification(name=path.name, content=content, document=document, operations=operations)


class _Constructor(SafeConstructor):
    """The generator's constructor, but it refuses a document that aliases expand to a huge one."""

    def construct_document(self, node: Any) -> Any:
        sizes: dict[int, int] = {}
        if _expanded_size(node, sizes) > len(sizes) + _MAX_ALIASED_NODES:
            raise CodegenError(f"its YAML aliases stand for more than {_MAX_ALIASED_NODES:,} further nodes")
        return super().construct_document(node)


def _expanded_size(node: Any, sizes: dict[int, int]) -> int:
    """Return the number of nodes below a node; those of an alias count each time it is used."""
    if id(node) not in sizes:
        sizes[id(node)] = 1  # for an alias that contains itself, which is refused later
        children: list[Any] = []
        if isinstance(node, SequenceNode):
            children = node.value
        elif isinstance(node, MappingNode):
            children = [part for pair in node.value for part in pair]
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[id(node)]


def _parse(content: bytes) -> dict[str, Any]:
    try:
        # The generator's own loader, so that both read the same document. It reads JSON, too.
        yaml = YAML(typ="safe", pure=True)
        yaml.Constructor = _Constructor
        document = yaml.load(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CodegenError(f"not UTF-8 at byte {error.start}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise CodegenError(
            f"bad YAML: {where}{one_line(error.problem or error.context or 'unreadable')}"
        ) from error
    except (YAMLError, ValueError, TypeError) as error:  # TypeError: a key that is a list of lists
        raise CodegenError(f"bad YAML: {one_line(str(error))}") from error
    if document is None:
        raise CodegenError("the file is empty")
    if not isinstance(document, dict):
        raise CodegenError("not an OpenAPI document: the top level is not a mapping")
    return dict(_with_text_keys(document, "#"))


def _with_text_keys(node: Any, where: str, seen: frozenset[int] = frozenset()) -> Any:
    """Return a node with its keys as text (`'200':` for `200:`): the validator fails on numbers as keys."""
    if id(node) in seen:
        raise CodegenError(f"{where}: the YAML alias contains itself")
    if isinstance(node, dict):
        result: dict[str, Any] = {}
        for key, value in node.items():
            if not isinstance(key, str) and (not isinstance(key, int) or isinstance(key, bool)):
                raise CodegenError(f"{where}: the key {key!r} is not text")
            if str(key) in result:
                raise CodegenError(f"{where}: the key {key} occurs twice")
            result[str(key)] = _with_text_keys(value, f"{where}/{key}", seen | {id(node)})
        return result
    if isinstance(node, list):
        return [_with_text_keys(value, f"{where}/{at}", seen | {id(node)}) for at, value in enumerate(node)]
    return node


def _check_version(document: dict[str, Any]) -> None:
    if "swagger" in document:
        raise CodegenError(f"OpenAPI {document['swagger']} is not supported; 3.0 or 3.1 is needed")
    declared = document.get("openapi")
    if declared is None:
        raise CodegenError("not an OpenAPI document: it has no 'openapi' version")
    if not re.fullmatch(r"3\.[01]\.\d+", str(declared)):
        raise CodegenError(f"OpenAPI {declared} is not supported; 3.0 or 3.1 is needed")


def _check_references(document: dict[str, Any]) -> None:
    for where, node in _walk(document, "#"):
        reference = node.get("$ref") if isinstance(node, dict) else None
        # In `properties: {$ref: {...}}` it is the name of a property, not a reference.
        if not isinstance(reference, str):
            continue
        if not reference.startswith("#/"):
            raise CodegenError(
                f"{where}: $ref '{reference}' points outside the file, which the generator cannot follow"
            )
        if pointed_to(document, reference) is None:
            raise CodegenError(f"{where}: $ref '{reference}' does not resolve")


def _validate(document: dict[str, Any]) -> None:
    validator = _VALIDATORS[document["openapi"][:3]](document)
    try:
        error = next(iter(validator.iter_errors()), None)
    except (OpenAPIValidationError, KeyError, TypeError, ValueError, AttributeError, LookupError) as crash:
        # The validator itself fails on some invalid documents.
        raise CodegenError(f"not valid OpenAPI: {one_line(f'{type(crash).__name__}: {crash}')}") from crash
    if error is not None:
        where = "/".join(
            ["#", *(str(part).replace("/", "~1") for part in getattr(error, "absolute_path", ()))]
        )
        raise CodegenError(f"not valid OpenAPI: {where}: {one_line(str(getattr(error, 'message', error)))}")


def _operation_nodes(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and node of each operation. The document need not be valid."""
    paths = document.get("paths")
    for path, item in paths.items() if isinstance(paths, dict) else ():
        for method in METHODS:
            node = item.get(method) if isinstance(item, dict) else None
            if isinstance(node, dict):
                yield path, method, node


def _check_known_traps(document: dict[str, Any]) -> None:
    """Refuse common mistakes with clearer messages than the validator's."""
    if "paths" not in document:
        raise CodegenError("it has no 'paths'; the generator makes a client of paths alone")
    seen: dict[str, str] = {}
    for path, method, node in _operation_nodes(document):
        where = f"{method.upper()} {path}"
        operation_id = node.get("operationId")
        if operation_id is None:
            raise CodegenError(f"{where}: no operationId; its module's name would follow from the path")
        if first := seen.get(str(operation_id)):
            raise CodegenError(f"{where}: duplicate operationId '{operation_id}', first at {first}")
        seen[str(operation_id)] = where
        responses = node.get("responses")
        for code in responses if isinstance(responses, dict) else ():
            if not re.fullmatch(r"[1-5](\d\d|XX)|default|x-.*", code):
                raise CodegenError(f"{where}: bad status code '{code}'")


def _checked_operations(document: dict[str, Any]) -> tuple[Operation, ...]:
    operations = []
    for path, item in document["paths"].items():
        if "$ref" in item:
            raise CodegenError(f"#/paths/{path}: a path that is a $ref is left out by the generator")
        _check_content(path, {}, item.get("parameters", []))
    for path, method, node in _operation_nodes(document):
        operations.append(Operation(node["operationId"], method.upper(), path))
        _check_content(f"{method.upper()} {path}", node, node.get("parameters", []))
    components = document.get("components", {})
    for name, parameter in components.get("parameters", {}).items():
        _check_content(f"#/components/parameters/{name}", {}, [parameter])
    for name, body in components.get("requestBodies", {}).items():
        _check_media_types(f"#/components/requestBodies/{name}", body, is_body=True)
    for name, response in components.get("responses", {}).items():
        _check_media_types(f"#/components/responses/{name}", response, is_body=False)
    if not operations:
        raise CodegenError("it has no operation")
    return tuple(operations)


def _check_content(where: str, operation: dict[str, Any], parameters: list[dict[str, Any]]) -> None:
    _check_media_types(f"{where}: request body", operation.get("requestBody", {}), is_body=True)
    for code, response in operation.get("responses", {}).items():
        if not code.startswith("x-"):
            _check_media_types(f"{where}: response {code}", response, is_body=False)
    for parameter in parameters:
        if "content" in parameter:
            raise CodegenError(
                f"{where}: parameter {parameter.get('name')} has 'content', which the generator leaves out"
            )


def _check_media_types(where: str, holder: dict[str, Any], *, is_body: bool) -> None:
    for name in holder.get("content", {}):
        message = Message()
        message.add_header("Content-Type", name)
        media_type = message.get_content_type()
        known = media_type == "application/json" or media_type.endswith("+json")
        if is_body:
            known = known or media_type in _BODY_TYPES
        else:
            known = known or media_type.startswith("text/") or media_type == "application/octet-stream"
        if not known or not name.startswith(media_type):
            raise CodegenError(f"{where}: content type '{name}' is left out by the generator")


def _walk(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    yield where, node
    if isinstance(node, dict):
        for key, value in node.items():
            # Examples are data.
            if key not in {"example", "examples"} or where.endswith("/properties"):
                yield from _walk(value, f"{where}/{str(key).replace('/', '~1')}")
    elif isinstance(node, list):
        for at, value in enumerate(node):
            yield from _walk(value, f"{where}/{at}")
