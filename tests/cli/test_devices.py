from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox
    from tests.cli.conftest import Cli


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
    file = cli.file("d.csv", "model,serialNumber,location\nA,SN-1,H\nA,SN-2,\nA,SN-1,again\n")
    ended = await cli.run("devices", "provision", "--file", file, "--json")
    outcomes = [result["outcome"] for result in ended.json["results"]]
    assert (ended.code, sorted(outcomes)) == (1, ["failed", "provisioned", "provisioned"])
    assert "is there twice" in ended.err
    assert len(sandbox.devices) == 5


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
