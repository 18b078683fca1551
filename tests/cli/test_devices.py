from __future__ import annotations

import errno
import itertools
import json
from typing import TYPE_CHECKING

import pytest

from printos_async.cli.input.source import Source

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .conftest import Cli


def posts(sandbox: Sandbox) -> int:
    return sum(seen.method == "POST" for seen in sandbox.requests)


async def test_devices_are_listed_for_people_and_for_machines(cli: Cli, sandbox: Sandbox) -> None:
    sandbox.add_device("dev-\u001b[31mred", model="[bold]Indigo[/bold]")
    ended = await cli.run("devices", "list")
    header, *rows = [row.split("\t") for row in ended.out.splitlines()]
    assert (ended.code, ended.err) == (0, "")
    assert header == ["id", "model", "serialNumber", "status", "registeredAt"]
    assert [row[0] for row in rows] == ["dev-1", "dev-2", "dev-3", "dev-\\x1b[31mred"]
    assert rows[3][1] == "[bold]Indigo[/bold]"
    ended = await cli.run("devices", "list", "--json")
    assert [device["id"] for device in ended.json["devices"]] == list(sandbox.devices)


async def test_one_device_is_provisioned_from_options(cli: Cli, sandbox: Sandbox) -> None:
    ended = await cli.run(
        "devices", "provision", "--model", "Indigo", "--serial-number", "SN-9", "--location", "Hall 3"
    )
    device = list(sandbox.devices.values())[-1]
    assert ended.code == 0
    assert (device.model, device.serial_number, device.location) == ("Indigo", "SN-9", "Hall 3")
    assert f"provisioned\t{device.id}\tIndigo\tSN-9\tHall 3" in ended.out


async def test_many_devices_are_provisioned_from_a_file(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("d.csv", "model,serialNumber,location\nA,SN-1,H\nA,SN-2,\n")
    ended = await cli.run("devices", "provision", "--file", file, "--json")
    outcomes = [result["outcome"] for result in ended.json["results"]]
    assert (ended.code, ended.err, outcomes) == (0, "", ["provisioned", "provisioned"])
    assert ended.json["replaced"] == 0
    assert len(sandbox.devices) == 5


async def test_a_fleet_that_is_provisioned_twice_is_found_the_second_time(cli: Cli, sandbox: Sandbox) -> None:
    lines = (json.dumps({"model": "A", "serialNumber": f"SN-{number}"}) for number in range(500))
    file = cli.file("d.jsonl", "\n".join(lines))
    ended = await cli.run("devices", "provision", "--file", file)
    assert (ended.code, ended.err) == (0, "printos: 500 provisioned, 0 found, 0 failed\n")
    ids = [row.split("\t")[1] for row in ended.out.splitlines()[1:]]
    ended = await cli.run("devices", "provision", "--file", file)
    assert (ended.code, ended.err) == (0, "printos: 0 provisioned, 500 found, 0 failed\n")
    assert [row.split("\t")[:2] for row in ended.out.splitlines()[1:]] == [["found", id_] for id_ in ids]
    assert set(ids) < set(sandbox.devices)
    assert posts(sandbox) == 500
    ended = await cli.run("devices", "provision", "--file", file, "--json")
    assert [result["attempts"] for result in ended.json["results"]] == [0] * 500
    assert posts(sandbox) == 500


async def test_replacing_says_how_many_it_replaces(cli: Cli, sandbox: Sandbox) -> None:
    await cli.run("devices", "provision", "--file", cli.file("d.csv", "model,serialNumber\nA,SN-1\nA,SN-2\n"))
    before = set(sandbox.devices)
    file = cli.file("e.csv", "model,serialNumber\nA,SN-1\nA,SN-2\nA,SN-3\nB,\n")
    ended = await cli.run("devices", "provision", "--file", file, "--replace")
    assert ended.code == 0
    assert ended.err.splitlines() == [
        "printos: replacing 2 registered devices; each gets a new identifier",
        "printos: 4 provisioned (2 of them replaced), 0 found, 0 failed",
    ]
    assert len(before - set(sandbox.devices)) == 2
    ended = await cli.run("devices", "provision", "--file", file, "--replace", "--json")
    assert (ended.code, ended.json["replaced"]) == (0, 3)


@pytest.mark.parametrize("options", [[], ["--replace"]])
async def test_a_line_that_repeats_another_is_refused_before_anything_is_sent(
    cli: Cli, sandbox: Sandbox, options: list[str]
) -> None:
    file = cli.file("d.csv", "model,serialNumber,location\nA,SN-1,H\nA,SN-2,\nA,SN-1,again\n")
    ended = await cli.run("devices", "provision", "--file", file, *options)
    assert (ended.code, ended.out) == (1, "")
    assert "line 4: repeats the model and serial number of line 2" in ended.err
    assert sandbox.request_count == 0


async def test_what_cannot_be_looked_for_is_refused_before_anything_is_sent(
    cli: Cli, sandbox: Sandbox
) -> None:
    file = cli.file("d.jsonl", '{"model": "A", "serialNumber": "SN-1"}\n{"model": "A"}\n')
    ended = await cli.run("devices", "provision", "--file", file)
    assert (ended.code, ended.out) == (1, "")
    assert "line 2: needs model and serialNumber" in ended.err
    assert sandbox.request_count == 0


async def test_one_device_is_found_or_replaced_like_those_of_a_file(cli: Cli, sandbox: Sandbox) -> None:
    options = ("devices", "provision", "--model", "Indigo", "--serial-number", "SN-9")
    assert (await cli.run(*options, "--json")).json["results"][0]["outcome"] == "provisioned"
    device_id = list(sandbox.devices)[-1]
    ended = await cli.run(*options)
    assert (ended.code, ended.err) == (0, "")
    assert f"found\t{device_id}\tIndigo\tSN-9" in ended.out
    ended = await cli.run(*options, "--replace", "--json")
    assert (ended.json["results"][0]["outcome"], ended.json["replaced"]) == ("provisioned", 1)
    assert device_id not in sandbox.devices


async def test_one_device_without_a_serial_number_is_registered(cli: Cli, sandbox: Sandbox) -> None:
    ended = await cli.run("devices", "provision", "--model", "Indigo", "--json")
    assert (ended.code, ended.err, ended.json["results"][0]["outcome"]) == (0, "", "provisioned")
    assert len(sandbox.devices) == 4


@pytest.mark.parametrize(
    ("option", "name"),
    [("--model", "model"), ("--serial-number", "serialNumber"), ("--location", "location")],
)
async def test_an_empty_value_of_a_device_is_refused(
    cli: Cli, sandbox: Sandbox, option: str, name: str
) -> None:
    given = {"--model": "A", "--serial-number": "SN-1", "--location": "H", option: ""}
    ended = await cli.run("devices", "provision", *itertools.chain(*given.items()))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"printos: {name} is empty; give it a value, or leave the option out\n"
    assert sandbox.request_count == 0


async def test_a_list_that_cannot_be_read_provisions_nothing(cli: Cli, sandbox: Sandbox) -> None:
    sandbox.inject("server_error", operation="listDevices", times=2)
    file = cli.file("d.csv", "model,serialNumber\nA,SN-1\n")
    for options in ((), ("--replace",)):
        ended = await cli.run("devices", "provision", "--file", file, "--max-attempts", "1", *options)
        assert (ended.code, ended.out) == (1, "")
        assert "GET /devices: 503" in ended.err
    assert posts(sandbox) == 0


async def test_a_disk_that_fails_provisions_nothing(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Source) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Source, "read", fail)
    file = cli.file("d.csv", "model,serialNumber\nA,SN-1\n")
    ended = await cli.run("devices", "provision", "--file", file)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"printos: nothing was sent: cannot read {file}: Input/output error\n"
    assert sandbox.request_count == 0


async def test_a_bad_line_provisions_nothing(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("d.jsonl", '{"model": "A", "serialNumber": "SN-1"}\n{"serialNumber": 1}\n')
    ended = await cli.run("devices", "provision", "--file", file)
    assert (ended.code, ended.out) == (1, "")
    assert "line 2: provision request: serialNumber must be a text" in ended.err
    assert sandbox.request_count == 0


async def test_devices_are_provisioned_from_standard_input(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start("devices", "provision", "--file", "-", "--json")
    ended = await process.wait(b'{"model": "A", "serialNumber": "SN-1"}')
    assert (ended.code, len(ended.json["results"]), len(sandbox.devices)) == (0, 1, 4)


async def test_a_file_and_one_device_exclude_each_other(cli: Cli, sandbox: Sandbox) -> None:
    for args in ((), ("--model", "A", "--file", "d.csv")):
        ended = await cli.run("devices", "provision", *args)
        assert ended.code == 2
        assert "--file" in ended.err


async def test_a_header_that_cannot_be_used_is_named_with_its_file(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("d.csv", "model,model\nA,B\n")
    ended = await cli.run("devices", "provision", "--file", file)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"printos: {file}, line 1: the first line names a column twice\n"


async def test_a_call_that_fails_names_the_command_that_looks_further(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRINTOS_SECRET", "another")
    ended = await cli.run("devices", "list")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.endswith("; printos check says what is wrong\n")
