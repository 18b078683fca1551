"""Joins an outbox, puts a status for device ``a`` that it owns, says so, and stays: ``python joined.py URL``."""

from __future__ import annotations

import asyncio
import sys

from printos_async.outbox import SqlOutbox
from tests.outbox.stores import ACCOUNT, LEASE_S, draft


async def main() -> None:
    outbox = SqlOutbox(sys.argv[1], lease_s=LEASE_S)
    await outbox.open(ACCOUNT)
    [kept] = await outbox.put([draft("a")], owner=await outbox.join())
    assert kept.claimed
    sys.stdout.write("joined\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
