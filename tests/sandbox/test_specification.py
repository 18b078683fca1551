"""schemathesis against the sandbox on its socket: the specification's types, methods and answers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import yaml

from printos_async.sandbox import Faults, Sandbox

SPECIFICATION = Path(__file__).parents[2] / "spec" / "hp-printos-device-api-openapi.yml"
# A well-formed status of a device that does not exist is answered 404.
SETTINGS = '[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", 404]\n'


async def run_schemathesis(sandbox: Sandbox, folder: Path, *options: str) -> tuple[int | None, str]:
    document = yaml.safe_load(SPECIFICATION.read_text())
    for operations in document["paths"].values():
        for operation in operations.values():
            # The specification documents no refusals; any other undocumented answer is a finding.
            operation["responses"]["4XX"] = {"description": "Refused"}
    (folder / "openapi.yml").write_text(yaml.safe_dump(document))
    (folder / "settings.toml").write_text(SETTINGS)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", "settings.toml"),
        *("run", "openapi.yml", "--url", sandbox.url, "--seed", "1", "--no-color", *options),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode()


async def test_schemathesis_finds_nothing_but_refusals(sandbox: Sandbox, tmp_path: Path) -> None:
    code, output = await run_schemathesis(sandbox, tmp_path, "--max-examples", "10")

    assert code == 0, output
    put = ("PUT", "/devices/{deviceId}/status")
    for answer in [
        *((*put, status) for status in (200, 400)),
        ("POST", "/devices", 201),
        ("GET", "/devices", 200),
    ]:
        assert sandbox.request_counts[answer] > 0, answer


async def test_schemathesis_finds_a_sandbox_that_breaks_its_word(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.set_faults(Faults(malformed=1, malformed_kinds=("wrong_types",)))

    code, output = await run_schemathesis(
        sandbox, tmp_path, "--max-examples", "1", "--phases", "coverage", "--include-method", "GET"
    )

    assert code == 1
    assert "Response violates schema" in output
