"""Public interface against the last release: what breaks has to stand in the changelog.

``python -m tests.packaging.public_interface`` compares the working tree with the last tag ``v*``, as griffe reads the
sources; nothing is imported. A break is known if a line under "Changed" or "Removed", above the section of that release
in CHANGELOG.md, names it in a code span, and the parameter too where it is one.
"""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE = "printos_async"
FOLDERS = (PACKAGE, "generated")
# Not for import by users: the command is public, not its modules.
NOT_PUBLIC = (f"{PACKAGE}.cli", f"{PACKAGE}.__version__")


@frozen
class Break:
    """One incompatible change.

    Attributes:
        name: Of the object, as users write it, without the package.
        parameter: Of a function, if the change concerns one.
        what: What changed, in griffe's words.
    """

    name: str
    parameter: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.name}{f'({self.parameter})' if self.parameter else ''}: {self.what}"


class _AttrsInit(griffe.Extension):
    """Adds the ``__init__`` that attrs writes; griffe itself knows only that of dataclasses."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        decorators = [str(decorator.value) for decorator in cls.decorators]
        if not any(re.match(r"(attrs\.|_attrs_)?(define|frozen)\b", text) for text in decorators):
            return
        keyword_only = any("kw_only=True" in text for text in decorators)
        kind = (
            griffe.ParameterKind.keyword_only if keyword_only else griffe.ParameterKind.positional_or_keyword
        )
        parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
        parameters += [
            griffe.Parameter(
                field.name.lstrip("_"), annotation=field.annotation, kind=kind, default=_default(field)
            )
            for field in cls.members.values()
            if isinstance(field, griffe.Attribute)
            and field.annotation is not None
            and "property" not in field.labels
            and "init=False" not in str(field.value)
        ]
        cls.set_member(
            "__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters), returns="None")
        )


def _default(field: griffe.Attribute) -> str | griffe.Expr | None:
    """Return a field's default; `field(repr=False)` has none."""
    value = str(field.value)
    if re.match(r"(attrs\.)?field\(", value) and not re.search(r"\b(default|factory)=", value):
        return None
    return field.value


def breaks(old: Path, new: Path) -> list[Break]:
    """Return what breaks for users between two source trees."""
    # It warns of docstrings and unknown imports, which are no matter of the comparison.
    logging.getLogger("griffe").setLevel(logging.CRITICAL)
    found = {_as_break(breakage) for breakage in griffe.find_breaking_changes(_load(old), _load(new))
             if not breakage.obj.path.startswith(NOT_PUBLIC)}  # fmt: skip
    return sorted(found, key=str)


def _load(folder: Path) -> griffe.Object | griffe.Alias:
    loader = griffe.GriffeLoader(
        search_paths=[folder, folder / "generated"],
        allow_inspection=False,
        extensions=griffe.load_extensions(_AttrsInit()),
    )
    if (folder / "generated" / "printos_device_api").is_dir():
        loader.load("printos_device_api", try_relative_path=False)
    # Not the one in the working folder, which griffe would prefer to the search paths.
    package = loader.load(PACKAGE, try_relative_path=False)
    loader.resolve_aliases(external=False)
    return package


def _as_break(breakage: griffe.Breakage) -> Break:
    path, found = [breakage.obj.name], breakage.obj.parent
    while found is not None and found.is_class:
        path.insert(0, found.name)
        found = found.parent
    parameters = (breakage.old_value, breakage.new_value)
    parameter = next((value.name for value in parameters if isinstance(value, griffe.Parameter)), None)
    return Break(".".join(path), parameter, breakage.kind.value)


def unknown(found: Iterable[Break], changelog: str, tag: str) -> list[Break]:
    """Return the breaks that no line of the changelog names."""
    lines = [_words(line) for line in _changes(changelog, tag)]
    return [one for one in found if not any(_is_named(one, words) for words in lines)]


def _is_named(one: Break, words: set[str]) -> bool:
    *owner, name = one.name.split(".")
    name = owner[-1] if name == "__init__" else name
    return name in words and (one.parameter is None or one.parameter in words)


def _words(line: str) -> set[str]:
    return {word for span in re.findall(r"`([^`]+)`", line) for word in re.findall(r"\w+", span)}


def _changes(changelog: str, tag: str) -> Iterator[str]:
    section = ""
    for line in changelog.splitlines():
        if line.startswith(f"## [{tag.removeprefix('v')}]"):
            return
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif line.startswith("- ") and section in {"Changed", "Removed"}:
            yield line


def last_tag(root: Path) -> str | None:
    """Return the last release's tag before the commit of a repository, or None."""
    ended = _git(root, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    return ended.stdout.decode().strip() or None


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    # The output of failures is not of interest: outside a repository, and in one without tags, there is nothing to do.
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=False)


def main(root: Path) -> int:
    """Print the comparison and return the exit code: 1 if something breaks that the changelog does not name."""
    tag = last_tag(root)
    if tag is None:
        print("public interface: there is no release to compare with (no tag v*)")
        return 0
    with tempfile.TemporaryDirectory() as old:
        archive = _git(root, "archive", "--format=zip", tag, *FOLDERS)
        archive.check_returncode()
        with zipfile.ZipFile(io.BytesIO(archive.stdout)) as packed:
            packed.extractall(old)
        found = breaks(Path(old), root)
    left = unknown(found, (root / "CHANGELOG.md").read_text("utf-8"), tag)
    for one in found:
        print(f"{'!' if one in left else ' '} {one}")
    print(f"public interface since {tag}: {len(found)} breaking, {len(left)} of them not in the changelog")
    if left:
        print(
            'name each one marked "!" in CHANGELOG.md under "Changed" or "Removed", or take the change back'
        )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[2]))
