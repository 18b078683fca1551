from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from openapi_schema_validator import OAS31Validator

from printos_async.sandbox import Faults

if TYPE_CHECKING:
    import httpx

    from printos_async.sandbox import Sandbox

SPECIFICATION = Path(__file__).parents[2] / "spec" / "hp-printos-device-api-openapi.yml"
STATUS_PATH = "/devices/dev-1/status"
BODY = b'{"status":"DS_ON"}'


async def test_status_update_answers_200_without_a_body_and_is_kept(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    status = {"status": "DS_PRINTING", "metrics": {"pagesTotal": 12, "inkLevel": 0.4}}

    response = await client.put(STATUS_PATH, json=status)

    assert (response.status_code, response.content) == (200, b"")
    assert sandbox.devices["dev-1"].status == status
    assert sandbox.devices["dev-1"].updates == 1
    assert sandbox.devices["dev-2"].updates == 0


async def test_writes_are_recorded_in_the_order_in_which_they_were_applied(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    for device_id, word in [("dev-1", "DS_ON"), ("dev-2", "DS_ON"), ("dev-1", "DS_OFF")]:
        await client.put(f"/devices/{device_id}/status", json={"status": word})

    assert [(a.sequence, a.device_id, a.status["status"], a.late) for a in sandbox.applied] == [
        (1, "dev-1", "DS_ON", False),
        (2, "dev-2", "DS_ON", False),
        (3, "dev-1", "DS_OFF", False),
    ]
    assert sandbox.applied_count == 3


async def test_provisioned_device_is_returned_and_listed(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    request = {"model": "Indigo 12000", "serialNumber": "SN-1", "location": "Hall 3"}

    response = await client.post("/devices", json=request)

    assert response.status_code == 201
    device = response.json()
    assert device["model"] == "Indigo 12000"
    assert device["serialNumber"] == "SN-1"
    assert device["registeredAt"].endswith("Z")
    assert datetime.fromisoformat(device["registeredAt"]).utcoffset() == timedelta(0)
    assert sandbox.devices[device["id"]].location == "Hall 3"
    assert device in (await client.get("/devices")).json()["devices"]


async def test_listed_device_carries_its_newest_status_word(client: httpx.AsyncClient) -> None:
    await client.put(STATUS_PATH, json={"status": "DS_ERROR"})

    devices = (await client.get("/devices")).json()["devices"]

    assert {d["id"]: d.get("status") for d in devices} == {"dev-1": "DS_ERROR", "dev-2": None}


async def test_provisioning_the_same_model_and_serial_number_replaces_the_device(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    request = {"model": "Indigo", "serialNumber": "SN-1"}
    first = (await client.post("/devices", json=request)).json()["id"]
    second = (await client.post("/devices", json=request)).json()["id"]
    other = (await client.post("/devices", json={**request, "model": "PageWide"})).json()["id"]

    assert len({first, second, other}) == 3
    assert set(sandbox.devices) == {"dev-1", "dev-2", second, other}
    gone = await client.put(f"/devices/{first}/status", json={"status": "DS_ON"})
    assert gone.status_code == 404


async def test_devices_without_a_serial_number_do_not_replace_each_other(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    for _ in range(2):
        assert (await client.post("/devices", json={"model": "Indigo"})).status_code == 201

    assert len(sandbox.devices) == 4


async def test_unknown_device_is_answered_404_with_the_error_envelope(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    response = await client.put("/devices/nobody/status", json={"status": "DS_ON"})

    assert response.status_code == 404
    envelope = response.json()["smsError"]
    assert envelope["statusCode"] == 404
    assert set(envelope) == {
        "statusCode",
        "message",
        "moreInfoUrl",
        "developerInfo",
        "subCode",
        "serviceName",
    }
    assert response.headers["x-request-id"]
    assert sandbox.applied_count == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"DS_ON"',
        b'{"status":null}',
        b'{"status":1}',
        b'{"metrics":[]}',
        b'{"metrics":null}',
        b'{"metrics":{"pagesTotal":1.5}}',
        b'{"metrics":{"pagesTotal":true}}',
        b'{"metrics":{"pagesTotal":"1"}}',
        b'{"metrics":{"inkLevel":"full"}}',
        b'{"metrics":{"inkLevel":false}}',
        b'{"metrics":{"inkLevel":NaN}}',
        b'{"metrics":{"inkLevel":-Infinity}}',
        b'{"status":"\xff"}',
        b"[" * 200_000,
    ],
)
async def test_status_that_the_specification_does_not_allow_is_answered_400(
    sandbox: Sandbox, client: httpx.AsyncClient, body: bytes
) -> None:
    response = await client.put(STATUS_PATH, content=body, headers={"content-type": "application/json"})

    assert response.status_code == 400
    assert response.json()["smsError"]["statusCode"] == 400
    assert sandbox.devices["dev-1"].updates == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "a word of one's own"},
        {"status": "DS_ON", "metrics": {}},
        {"status": "DS_ON", "metrics": {"pagesTotal": 12.0}},
        {"status": "DS_ON", "metrics": {"inkLevel": 3}},
        {"status": "DS_ON", "extra": None},
    ],
)
async def test_status_is_kept_as_received_if_the_specification_allows_it(
    sandbox: Sandbox, client: httpx.AsyncClient, body: dict[str, object]
) -> None:
    # Which fields are required and which words are listed is the specification's to change.
    schema = {"$ref": "#/components/schemas/DeviceStatusUpdate"}
    document = yaml.safe_load(SPECIFICATION.read_text("utf-8"))
    allowed = OAS31Validator({**document, **schema}).is_valid(body)

    assert (await client.put(STATUS_PATH, json=body)).status_code == (200 if allowed else 400)
    assert sandbox.devices["dev-1"].status == (body if allowed else None)


@pytest.mark.parametrize("name", ["model", "serialNumber", "location"])
async def test_provision_request_of_the_wrong_type_is_answered_400(
    sandbox: Sandbox, client: httpx.AsyncClient, name: str
) -> None:
    response = await client.post("/devices", json={name: 1})

    assert response.status_code == 400
    assert name in response.json()["smsError"]["message"]
    assert len(sandbox.devices) == 2


async def test_other_content_types_are_answered_415(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    response = await client.put(STATUS_PATH, content=BODY, headers={"content-type": "text/plain"})

    assert (response.status_code, sandbox.applied_count) == (415, 0)
    charset = {"content-type": "application/json; charset=utf-8"}
    assert (await client.put(STATUS_PATH, content=BODY, headers=charset)).status_code == 200


async def test_body_above_a_mebibyte_is_answered_413(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    response = await client.put(STATUS_PATH, json={"status": "x" * 1024 * 1024})

    assert (response.status_code, sandbox.applied_count) == (413, 0)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("DELETE", "/devices", "GET, POST"), ("POST", STATUS_PATH, "PUT"), ("GET", STATUS_PATH, "PUT")],
)
async def test_other_methods_are_answered_405_with_the_allowed_ones(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await client.request(method, path)

    assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path", ["/", "/device", "/devices/", "/devices/dev-1", "/devices//status", "/devices/a/b/status"]
)
async def test_other_paths_are_answered_404_with_the_error_envelope(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.put(path, json={})

    assert response.status_code == 404
    assert response.json()["smsError"]["statusCode"] == 404


@pytest.mark.parametrize(
    ("device_id", "segment"), [("a/b", "a%2Fb"), ("ä 1", "%C3%A4%201"), ("100%", "100%25"), ("..", "%2E%2E")]
)
async def test_encoded_identifier_is_decoded_once(
    sandbox: Sandbox, client: httpx.AsyncClient, device_id: str, segment: str
) -> None:
    sandbox.add_device(device_id)

    response = await client.put(f"/devices/{segment}/status", json={"status": "DS_ON"})

    assert response.status_code == 200
    assert sandbox.devices[device_id].updates == 1
    assert sandbox.requests[-1].path == f"/devices/{segment}/status"


async def test_reset_forgets_what_was_seen_and_keeps_the_devices(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    await client.put(STATUS_PATH, json={"status": "DS_ON"})
    sandbox.inject("server_error")

    sandbox.reset()

    assert (sandbox.applied_count, len(sandbox.applied)) == (0, 0)
    assert (sandbox.request_count, len(sandbox.requests), sandbox.request_counts) == (0, 0, {})
    assert (sandbox.max_concurrency, dict(sandbox.max_in_flight_by_device)) == (0, {})
    assert set(sandbox.devices) == {"dev-1", "dev-2"}
    assert sandbox.devices["dev-1"].status is None
    assert (await client.put(STATUS_PATH, json={"status": "DS_ON"})).status_code == 200
    assert sandbox.applied[0].sequence == 1


async def test_status_of_a_removed_device_is_answered_404(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.set_faults(Faults(late_write_by_s=(60, 60), late_write_answers=("504",)))
    sandbox.inject("late_write", device_id="dev-1")
    await client.put("/devices/dev-1/status", json={"status": "DS_ON"})

    sandbox.remove_device("dev-1")
    sandbox.apply_late_writes()

    statuses = [
        (await client.put(f"/devices/{device_id}/status", json={"status": "DS_ON"})).status_code
        for device_id in ("dev-1", "dev-2")
    ]
    assert (statuses, list(sandbox.devices)) == ([404, 200], ["dev-2"])
    assert [write.device_id for write in sandbox.applied] == ["dev-2"]


async def test_id_of_a_removed_device_is_free_for_another_machine(sandbox: Sandbox) -> None:
    sandbox.remove_device("dev-1")
    sandbox.add_device("dev-1", serial_number="another")
    sandbox.add_device("dev-3", serial_number="dev-1")  # the serial number that dev-1 had

    assert sorted(sandbox.devices) == ["dev-1", "dev-2", "dev-3"]


async def test_a_device_that_is_added_again_lets_its_first_serial_number_go(sandbox: Sandbox) -> None:
    sandbox.add_device("dev-1", serial_number="another")
    sandbox.add_device("dev-3", serial_number="dev-1")  # the serial number that dev-1 had

    assert sorted(sandbox.devices) == ["dev-1", "dev-2", "dev-3"]
