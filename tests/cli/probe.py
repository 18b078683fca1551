"""Reads the pages of a command's ``--listen``: health, and metrics in Prometheus' format."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from attrs import define
from prometheus_client.parser import text_string_to_metric_families as parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Running

# Within it a reason appears and disappears.
REASON_WITHIN_S = 10.0


@define
class Page:
    code: int
    content_type: str
    text: str

    @property
    def reasons(self) -> dict[str, str]:
        reasons: dict[str, str] = json.loads(self.text)["reasons"]
        return reasons


def get(url: str, *, accept: str = "*/*", timeout_s: float = 10.0) -> Page:
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return Page(answer.status, answer.headers["Content-Type"], answer.read().decode())
    except urllib.error.HTTPError as answer:
        with answer:
            return Page(answer.code, answer.headers["Content-Type"], answer.read().decode())


@define
class Probe:
    """Asks a process for its state; the address is in its first line."""

    url: str

    @classmethod
    async def of(cls, process: Running) -> Probe:
        text = await process.complaint()
        assert text.startswith("printos: health and metrics at http://127.0.0.1:"), text
        return cls(text.split()[5].removesuffix(":"))

    async def get(self, path: str, **options: Any) -> Page:
        return await asyncio.to_thread(get, self.url + path, **options)

    async def wait_for(self, path: str, is_wanted: Callable[[Page], bool]) -> Page:
        """Return a page once it is as wanted; ``/livez`` is 200 all the while."""
        async with asyncio.timeout(REASON_WITHIN_S):
            while not is_wanted(page := await self.get(path)):
                assert (await self.get("/livez")).code == 200
                await asyncio.sleep(0.05)
        return page

    async def is_ready(self) -> None:
        await self.wait_for("/readyz", lambda page: page.code == 200)

    async def is_unready(self, code: str) -> str:
        page = await self.wait_for("/readyz", lambda page: page.code == 503 and code in page.reasons)
        return page.reasons[code]

    async def samples(self) -> dict[str, float]:
        return samples_of((await self.get("/metrics")).text)


def samples_of(text: str) -> dict[str, float]:
    """Return the values of all samples, by name and labels."""
    return {
        " ".join(
            [sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]
        ): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def lines(*device_ids: str) -> str:
    return "".join(
        json.dumps({"deviceId": device_id, "status": "DS_ON", "metrics": {"pagesTotal": 1}}) + "\n"
        for device_id in device_ids
    )
