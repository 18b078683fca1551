"""The file of an outbox is replaced while a pusher works on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conftest import status

from .conftest import Workplace
from .seen import adds_up, pages

if TYPE_CHECKING:
    from pathlib import Path

    from printos_async import PrintOSClient
    from printos_async.sandbox import Sandbox


async def test_what_a_pusher_has_goes_into_the_new_file(
    sandbox: Sandbox, client: PrintOSClient, tmp_path: Path
) -> None:
    path = tmp_path / "spool" / "spool.db"
    place = Workplace(client, f"sqlite+aiosqlite:///{path}")
    async with place.pusher(ambiguity_s=0.1) as pusher:
        await sandbox.block()
        for number in range(2):  # the first of each is in flight, the second one waits
            for index in range(5):
                await pusher.put(f"dev-{index}", status(number))
            await sandbox.wait_for(lambda: sandbox.in_flight == 5)
        for left in path.parent.glob("spool.db*"):
            left.unlink()
        await pusher.put("dev-9", status(9))
        await sandbox.release()
        await sandbox.wait_for(
            lambda: (
                pages(sandbox, "dev-9") == 9
                and all(pages(sandbox, f"dev-{index}") == 1 for index in range(5))
            )
        )
        stats = await pusher.drain(timeout_s=10.0)
    assert adds_up(stats)
    assert stats.pending == 0
