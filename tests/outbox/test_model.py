"""Model test: after any sequence of operations a database returns the same as memory."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from printos_async.outbox import Draft, Finish, MemoryOutbox, OutboxStats, Release, SqlOutbox

from .stores import SqlStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .stores import AdministeredOutbox

# Hours, so that however long a test takes, it is nothing beside them.
HOUR_S = 3600.0
LEASE_S = 3 * HOUR_S
DEVICES = ["a", "b", "c"]
WORKERS = 3

devices = st.sampled_from(DEVICES)
several = st.lists(devices, max_size=4)
worker = st.integers(0, WORKERS - 1)
hours = st.integers(0, 4).map(lambda count: count * HOUR_S)
errors = st.one_of(st.none(), st.just("refused"))
endings = st.fixed_dictionaries({"error": errors, "keep": st.booleans()})
operations = st.one_of(
    st.tuples(st.just("put"), several, st.one_of(st.none(), worker)),
    st.tuples(st.just("put"), several, worker),
    st.tuples(st.just("join"), worker),
    st.tuples(st.just("renew"), worker),
    st.tuples(st.just("claim"), worker),
    st.tuples(st.just("finish"), worker, several, st.integers(0, 2), hours, endings),
    st.tuples(st.just("release"), worker, several, hours, st.one_of(st.none(), hours)),
    st.tuples(st.just("leave"), worker),
    st.tuples(st.just("newer"), worker),
    st.tuples(st.just("requeue"), st.one_of(st.none(), several)),
    st.tuples(st.just("purge"), st.booleans(), hours),
    st.tuples(st.just("pass"), st.integers(1, 4).map(lambda count: count * HOUR_S)),
)


class Driver:
    """Does an operation with one outbox, and gives what can be compared of the answer."""

    def __init__(self, outbox: AdministeredOutbox, floor: int) -> None:
        self.outbox = outbox
        self.floor = floor
        self.tokens: dict[int, int] = {}
        self._bodies = 0

    async def do(self, kind: str, *arguments: Any) -> Any:
        if kind != "join" and kind in {"renew", "claim", "finish", "release", "leave", "newer"}:
            index, *arguments = arguments  # type: ignore[assignment]
            arguments = (self.tokens.get(index, -1), *arguments)
        return comparable(await getattr(self, kind)(*arguments), self.floor)

    async def put(self, names: Sequence[str], index: int | None) -> Any:
        drafts = []
        for name in names:
            self._bodies += 1
            drafts.append(Draft(name, b"%d" % self._bodies))
        return await self.outbox.put(drafts, owner=None if index is None else self.tokens.get(index, -1))

    async def join(self, index: int) -> None:
        self.tokens[index] = await self.outbox.join()

    async def renew(self, owner: int) -> bool:
        return await self.outbox.renew(owner)

    async def claim(self, owner: int) -> Any:
        return by_device(await self.outbox.claim(owner, 100))

    async def finish(
        self, owner: int, names: Sequence[str], back: int, hold_s: float, ending: dict[str, Any]
    ) -> Any:
        newest = {one.device_id: one.seq for one in await self.outbox.progress(names)}
        done = [
            Finish(name, seq - back, hold_s, 2, **ending)
            for name, seq in newest.items()
            if seq - self.floor > back
        ]
        return by_device(await self.outbox.finish(owner, done))

    async def release(
        self, owner: int, names: Sequence[str], hold_s: float, uncertain_in_s: float | None
    ) -> None:
        await self.outbox.release(
            owner, [Release(name, hold_s, 3, uncertain_in_s) for name in dict.fromkeys(names)]
        )

    async def leave(self, owner: int) -> None:
        await self.outbox.leave(owner)

    async def newer(self, owner: int) -> Any:
        return by_device(await self.outbox.newer(owner, 100))

    async def requeue(self, names: Sequence[str] | None) -> int:
        return await self.outbox.requeue(names)

    async def purge(self, failed: bool, older_than_s: float) -> int:  # noqa: FBT001
        return await self.outbox.purge(failed=failed, older_than_s=older_than_s)

    async def everything(self) -> Any:
        stats = await self.outbox.stats()
        return comparable(
            [by_device(await self.outbox.progress(DEVICES)), await self.outbox.failed(), hourly(stats)],
            self.floor,
        )


def by_device(values: Sequence[Any]) -> list[Any]:
    return sorted(values, key=lambda value: str(value.device_id))


def hourly(stats: OutboxStats) -> OutboxStats:
    oldest_s = stats.oldest_waiting_s
    return attrs.evolve(stats, oldest_waiting_s=None if oldest_s is None else oldest_s // HOUR_S)


def comparable(answer: Any, floor: int) -> Any:
    """Leave out of ages what is less than an hour, and count numbers from the floor that there was at the beginning."""
    if isinstance(answer, list):
        return [comparable(item, floor) for item in answer]
    if attrs.has(type(answer)):
        fields = attrs.asdict(answer, recurse=False)
        return {
            name: round(value / HOUR_S)  # what is left of a hold shrinks while the database answers
            if name == "hold_s"
            else value // HOUR_S
            if name.endswith("_s") and value is not None
            else value - floor
            if name in {"seq", "done_seq"}
            else value
            for name, value in fields.items()
        }
    return answer


@settings(
    deadline=None,
    max_examples=60 if os.environ.get("PRINTOS_LONG_TESTS") else 25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(operations, min_size=5, max_size=40))
async def test_a_database_answers_as_memory_does(database_url: str, steps: list[tuple[Any, ...]]) -> None:
    offset_s = 0.0
    memory = MemoryOutbox(lease_s=LEASE_S, clock=lambda: offset_s)
    outbox = SqlOutbox(database_url, lease_s=LEASE_S)
    store = SqlStore(database_url)
    account = uuid.uuid4().hex
    await memory.open(account)
    await outbox.open(account)
    try:
        [(floor,)] = await store.execute("SELECT floor FROM printos_meta")
        model, real = Driver(memory, 0), Driver(outbox, int(str(floor)))
        for driver in (model, real):
            for index in range(WORKERS - 1):
                await driver.join(index)
        for step in steps:
            if step[0] == "pass":
                offset_s += step[1]
                await store.pass_time(step[1])
                continue
            assert await real.do(*step) == await model.do(*step), step
            assert await real.everything() == await model.everything(), step
    finally:
        await outbox.aclose()
