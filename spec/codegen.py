"""Generates ``generated/printos_device_api`` from the specification; ``codegen.sh`` runs this module.

Exit codes: 0 done, or no difference; 1 a difference (``--check``) or findings (``--findings``); 2 an error, in one line.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from spec.codegen_tools import CodegenError, assert_tools

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spec.codegen_input import Specification

_ROOT = Path(__file__).resolve().parent.parent
_GENERATED = _ROOT / "generated"
_SPECIFICATION = _ROOT / "spec" / "hp-printos-device-api-openapi.yml"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CodegenError(f"{message}; see ./codegen.sh --help")


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, and return the exit code."""
    try:
        options = _options(arguments)
        assert_tools()
        if options.check:
            return _check()
        if options.findings:
            return _findings(options.specification or _SPECIFICATION)
        if options.specification is None:
            return _generate(_SPECIFICATION, _GENERATED)
        return _generate(options.specification, _prepared_output(options.output))
    except (CodegenError, OSError) as error:  # OSError: a full disk, no permission; the text names the file
        print(f"codegen: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("codegen: interrupted", file=sys.stderr)
    return 2


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="codegen.sh",
        allow_abbrev=False,
        description="Make generated/printos_device_api from spec/hp-printos-device-api-openapi.yml and report what "
        "changed.",
        epilog="Exit codes: 0 done or no difference, 1 specification and client disagree (--check) or there are "
        "findings (--findings), 2 an error.",
    )
    parser.add_argument(
        "specification",
        nargs="?",
        type=Path,
        metavar="SPEC_FILE",
        help="try another specification; needs --output or --findings",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="make DIR/printos_device_api; generated/ stays as it is"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing; name the files that the specification would change",
    )
    parser.add_argument(
        "--findings",
        action="store_true",
        help="change nothing; say where the specification differs from what printos_async relies on",
    )
    options = parser.parse_args(arguments)
    if options.check and (options.specification or options.output or options.findings):
        parser.error("--check compares the committed client and takes nothing else")
    if options.findings:
        if options.output:
            parser.error("--findings makes nothing and takes no --output")
        return options
    if (options.specification is None) != (options.output is None):
        parser.error("SPEC_FILE goes with --output DIR or --findings, and --output with SPEC_FILE")
    return options


def _read(source: Path) -> Specification:
    # Imported here, as the modules below are where they are used: they need the tools, which assert_tools() has just
    # found, and importing the generator takes longer than refusing a broken specification.
    from spec.codegen_input import read_specification  # noqa: PLC0415

    return read_specification(source)


def _generate(source: Path, folder: Path) -> int:
    specification = _read(source)
    from spec.codegen_facts import facts  # noqa: PLC0415
    from spec.codegen_package import build, differences, recorded_specification  # noqa: PLC0415
    from spec.codegen_report import python_report, specification_report  # noqa: PLC0415
    from spec.codegen_swap import PACKAGE, locked, recover, replace, staging_folder  # noqa: PLC0415
    from spec.contract_findings import contract_findings  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / PACKAGE
    new = facts(specification.document)
    with locked(folder) as lock:
        recover(folder)
        before = recorded_specification(_GENERATED / PACKAGE)
        with staging_folder(folder) as staging:
            made = build(specification, staging, keep_open=(lock,))
            told = [
                specification_report(None if before is None else facts(before), new),
                python_report(_GENERATED, staging),
            ]
            if differences(made, target):
                replace(staging, target)
                print(f"{_shown(target)}: made from {source.name}")
            else:
                print(f"{_shown(target)}: as before")
    print(*told, sep="\n")
    number = len(contract_findings(new))
    command = ["./codegen.sh", *([] if source == _SPECIFICATION else [str(source)]), "--findings"]
    print(f"contract: {number or 'no'} finding{'' if number == 1 else 's'}; see {shlex.join(command)}")
    return 0


def _findings(source: Path) -> int:
    specification = _read(source)
    from spec.codegen_facts import facts  # noqa: PLC0415
    from spec.contract_findings import contract_findings, render  # noqa: PLC0415

    findings = contract_findings(facts(specification.document))
    print(render(findings))
    return 1 if findings else 0


def _check() -> int:
    specification = _read(_SPECIFICATION)
    from spec.codegen_package import build, differences  # noqa: PLC0415
    from spec.codegen_swap import PACKAGE, locked  # noqa: PLC0415

    if not _GENERATED.is_dir():
        raise CodegenError(f"{_shown(_GENERATED)} is missing; run ./codegen.sh")
    with tempfile.TemporaryDirectory(prefix="codegen-check-") as folder, locked(_GENERATED, shared=True):
        made = build(specification, Path(folder).resolve())
        drifted = differences(made, _GENERATED / PACKAGE)
    if not drifted:
        print(f"{_shown(_GENERATED / PACKAGE)} agrees with {_shown(_SPECIFICATION)}")
        return 0
    for kind, name in drifted:
        print(f"{kind:<8} {_shown(_GENERATED / PACKAGE / name)}")
    print("Specification and generated client disagree: run ./codegen.sh and commit what it makes.")
    return 1


def _prepared_output(output: Path) -> Path:
    """Return the folder to generate into; refuse a folder that holds other files."""
    from spec.codegen_package import LOCK_FILE  # noqa: PLC0415
    from spec.codegen_swap import PACKAGE, is_staging  # noqa: PLC0415

    folder = output.resolve()
    if folder.is_relative_to(_GENERATED):
        raise CodegenError(f"--output {output}: that is the committed client's folder; choose another")
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise CodegenError(f"--output {output}: not a folder")
    names = {path.name for path in folder.iterdir() if not is_staging(path)}
    if names and (names != {PACKAGE} or not (folder / PACKAGE / LOCK_FILE).is_file()):
        raise CodegenError(
            f"--output {output}: not empty, and not the output of an earlier run; choose another folder"
        )
    return folder


def _shown(path: Path) -> str:
    return str(path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
