"""What a ``MemoryOutbox`` keeps of statuses that it has handed over."""

from __future__ import annotations

import gc
from weakref import ref

from printos_async.outbox import Finish, MemoryOutbox, Release

from .stores import ACCOUNT, draft


async def test_nothing_is_kept_of_what_a_pusher_has_taken_out() -> None:
    outbox = MemoryOutbox()
    await outbox.open(ACCOUNT)
    first = await outbox.join()
    await outbox.put([draft("waiting"), draft("held")], owner=first)
    await outbox.finish(first, [Finish("held", 1, hold_s=60.0)])
    await outbox.put([draft("held")], owner=first)
    await outbox.release(first, [Release("waiting")])
    await outbox.leave(first)
    kept = [ref(row) for row in outbox._tenants[ACCOUNT].rows.values()]
    assert len(kept) == 2
    second = await outbox.join()
    claims = await outbox.claim_all(second)
    await outbox.finish(second, [Finish(claim.device_id, claim.seq) for claim in claims])
    await outbox.leave(second)
    gc.collect()
    assert [row() for row in kept] == [None, None]
