"""The files for running workers give arguments that the command accepts, and wait longer than it drains."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import yaml

from printos_async.cli import main
from printos_async.cli.monitoring.monitor import Monitor
from printos_async.cli.options.listen import ListenAddress

WORKERS = Path(__file__).resolve().parents[2] / "examples" / "workers"


def read(name: str) -> str:
    return (WORKERS / name).read_text("utf-8")


def container() -> dict[str, list[str]]:
    found = re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", read("Containerfile"), re.MULTILINE)
    return {name: json.loads(value) for name, value in found}


def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(read("printos-worker@.service"))
    return unit["Service"]


def compose() -> Any:
    return yaml.safe_load(read("compose.yaml"))["services"]["worker"]


def deployment() -> Any:
    return yaml.safe_load(read("kubernetes.yaml"))["spec"]


def commands() -> dict[str, list[str]]:
    [pod] = deployment()["template"]["spec"]["containers"]
    entry = container()
    return {
        "systemd": shlex.split(service()["ExecStart"]),
        "container": entry["ENTRYPOINT"] + entry["CMD"],
        "compose": entry["ENTRYPOINT"] + compose()["command"],
        "kubernetes": entry["ENTRYPOINT"] + pod["args"],
    }


@pytest.mark.parametrize("where", ["systemd", "container", "compose", "kubernetes"])
def test_the_command_understands_its_arguments(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *args = commands()[where]
    assert Path(program).name == "printos"
    assert args[0] == "worker"
    assert main([*args, "--help"]) == 0
    assert main([*args, "--lease", "nan"]) == 2
    assert "--lease must be a number" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["systemd", "container", "compose", "kubernetes"])
def test_nobody_kills_before_it_has_drained(where: str) -> None:
    args = commands()[where]
    drains_s = float(args[args.index("--drain-timeout") + 1])
    stop_timeout = re.search(r"--stop-timeout (\d+)", read("Containerfile"))
    assert stop_timeout is not None
    waits_s = {
        "systemd": service()["TimeoutStopSec"],
        "container": stop_timeout[1],
        "compose": compose()["stop_grace_period"].removesuffix("s"),
        "kubernetes": deployment()["template"]["spec"]["terminationGracePeriodSeconds"],
    }
    assert float(waits_s[where]) > drains_s + 5


def test_each_supervisor_starts_several_workers() -> None:
    assert "printos-worker@{1..3}" in read("printos-worker@.service")
    assert "%i" in read(
        "printos-worker@.service"
    )  # which instances of a template unit tell themselves apart by
    assert compose()["deploy"]["replicas"] > 1
    assert "container_name" not in compose()  # with which Compose starts one container only
    assert deployment()["replicas"] > 1


def test_what_is_secret_comes_from_the_secret() -> None:
    [pod] = deployment()["template"]["spec"]["containers"]
    sources = {variable["name"]: variable["valueFrom"]["secretKeyRef"]["name"] for variable in pod["env"]}
    assert sources == dict.fromkeys(["PRINTOS_OUTBOX", "PRINTOS_KEY"], "printos")
    [mounted] = [
        volume["secret"]
        for volume in deployment()["template"]["spec"]["volumes"]
        if volume["name"] == "credentials"
    ]
    [mount] = [mount for mount in pod["volumeMounts"] if mount["name"] == "credentials"]
    [item] = mounted["items"]
    assert f"{mount['mountPath']}/{item['path']}" == pod["args"][pod["args"].index("--secret-file") + 1]
    assert (mounted["secretName"], mounted["defaultMode"]) == ("printos", 0o440)
    assert "subPath" not in mount
    assert deployment()["template"]["spec"]["securityContext"]["fsGroup"] == 10001
    assert compose()["env_file"] == ["worker.env"]
    assert "environment" not in compose()


def test_a_rotated_secret_needs_no_restart() -> None:
    assert service()["ExecReload"] == "kill -HUP $MAINPID"
    assert "--secret-file" in commands()["systemd"]
    assert "PRINTOS_SECRET" not in read("printos-worker@.service")


@pytest.mark.parametrize("where", ["systemd", "container", "compose", "kubernetes"])
def test_each_worker_listens_where_it_is_probed(where: str) -> None:
    args = commands()[where]
    text = args[args.index("--listen") + 1].replace("%i", "1")
    address = ListenAddress.parse(text)
    assert address.is_loopback == (where in {"systemd", "container"})
    assert address.port == (9461 if where == "systemd" else 9464)


def test_what_cannot_be_reached_is_no_reason_to_restart() -> None:
    [pod] = deployment()["template"]["spec"]["containers"]
    [port] = pod["ports"]
    probes = {name: pod[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")}
    assert probes == {
        "livenessProbe": {"path": "/livez", "port": port["name"]},
        "readinessProbe": {"path": "/readyz", "port": port["name"]},
    }
    assert port["containerPort"] == 9464
    metadata = deployment()["template"]["metadata"]
    assert metadata["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    in_container = re.search(r"HEALTHCHECK .*\n +CMD (\[.*\])", read("Containerfile"))
    assert in_container is not None
    program = json.loads(in_container[1])
    assert compose()["healthcheck"]["test"] == ["CMD", *program]
    assert "http://127.0.0.1:9464/livez" in program[-1]


async def test_the_health_check_of_the_container_asks_the_worker(unused_tcp_port: int) -> None:
    *_, program = compose()["healthcheck"]["test"]
    program = program.replace("9464", str(unused_tcp_port))
    with pytest.raises(URLError):
        exec(program, {})
    async with Monitor(ListenAddress("127.0.0.1", unused_tcp_port)):
        exec(program, {})


def test_systemd_waits_for_the_worker_and_watches_it() -> None:
    assert service()["Type"] == "notify"
    assert float(service()["WatchdogSec"]) > 10  # the worker notifies at half of it
    assert "NotifyAccess" not in service()  # the main process alone notifies
