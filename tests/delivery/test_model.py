"""A pusher against a host that does at any moment what any host might, with everything interleaved at random."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from attrs import define, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from printos_async import (
    DeviceCredentials,
    HmacAuth,
    PrintOSClient,
    PusherFullError,
    RetryPolicy,
    StatusAccepted,
    StatusFailed,
    StatusSent,
    StatusSuperseded,
)
from printos_async._transport import ExchangeError, RawResponse

from .clock import FakeClockLoop
from .host import OK, UNAVAILABLE, Host, Reply, Seen, client_over, status

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from printos_async import PushResult

AMBIGUITY_S = 2.0
TIMEOUT_S = 5.0
# Just before the client stops expecting it, which is the worst that a late write may do.
LATEST_S = 0.99 * AMBIGUITY_S
DEVICES = ("dev-0", "dev-1", "dev-2")

REPLIES = {
    "ok": OK,
    "refused": UNAVAILABLE,
    "refused, but written": Reply(status=503),
    "too many": Reply(status=429, headers=(("retry-after", "3"),), apply_after_s=None),
    "lost before": Reply(status=None, apply_after_s=None),
    "lost after": Reply(status=None),
    "lost, written soon": Reply(status=None, apply_after_s=0.3),
    "lost, written late": Reply(status=None, apply_after_s=LATEST_S),
    "gateway, written late": Reply(status=504, apply_after_s=LATEST_S),
    "gateway, never written": Reply(status=504, apply_after_s=None),
    "gone": Reply(status=404, apply_after_s=None),
}
REFUSALS = {
    "unauthorized": Reply(status=401, apply_after_s=None),
    "forbidden": Reply(status=403, apply_after_s=None),
    "proxy": Reply(status=407, apply_after_s=None),
    "login page": Reply(status=302, apply_after_s=None),
}
# Until the next probe, which comes after 60 s at most, and a second in which it may be late.
RESUMED_WITHIN_S = 62.0


@define
class HoldingHost(Host):
    """Holds every request until it is told what to do with it; one that is forgotten times out and is written."""

    held: dict[str, tuple[Seen, asyncio.Future[Reply]]] = field(factory=dict)
    holding: bool = True

    async def _answer(
        self, loop: asyncio.AbstractEventLoop, seen: Seen, reply: Reply, deadline: float
    ) -> RawResponse:
        if self.holding:
            told: asyncio.Future[Reply] = loop.create_future()
            self.held[seen.device_id] = (seen, told)
            try:
                async with asyncio.timeout_at(deadline):
                    reply = await told
            except TimeoutError:
                loop.call_later(LATEST_S, self.apply, seen)
                raise ExchangeError("no answer", may_have_arrived=True, timed_out=True) from None
            finally:
                self.held.pop(seen.device_id, None)
        return await super()._answer(loop, seen, reply, deadline)


class PusherMachine(RuleBasedStateMachine):
    """Puts, pushes, cancels, answers and lets time pass; the invariants are what the pusher promises."""

    @initialize(
        consistency=st.sampled_from(["eventual", "strict"]),
        min_interval_s=st.sampled_from([0.0, 0.0, 1.5]),
        skipping=st.booleans(),
        deadline_s=st.sampled_from([None, None, 8.0]),
        room=st.sampled_from([2, 100]),
        credentials=st.sampled_from(["none", "one", "own", "shared"]),
    )
    def start(
        self,
        *,
        consistency: Any,
        min_interval_s: float,
        skipping: bool,
        deadline_s: float | None,
        room: int,
        credentials: str,
    ) -> None:
        self.loop = FakeClockLoop()
        self.failures: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self.host = HoldingHost()
        self.strict = consistency == "strict"
        self.skipping = skipping
        self.deadline_s = deadline_s
        self.pages = 0
        self.values: dict[int, tuple[str, int]] = {}  # by sequence number, what was accepted
        self.outcomes: dict[int, str] = {}
        self.withdrawn: set[int] = set()
        self.touched: set[str] = (
            set()
        )  # devices that were refused once: what they end with is another question
        self.accepting: tuple[str, int] = ("", 0)
        self.pushes: list[tuple[asyncio.Task[PushResult], int]] = []
        self.keys: dict[str, HmacAuth] = {}  # of devices that have credentials
        self.refused: dict[str, str] = {}  # devices whose credentials are refused, and how
        self.are_own = credentials in {"own", "shared"}
        shared = HmacAuth("shared", "secret")
        for device_id in DEVICES:
            self.keys[device_id] = HmacAuth(device_id, "secret") if credentials == "own" else shared
        auth = {"none": None, "one": shared}.get(credentials, DeviceCredentials(self.look_up))
        retry = RetryPolicy(base_delay_s=0.1, max_delay_s=5.0, max_attempts=10_000, budget=5)
        self.client: PrintOSClient = client_over(
            self.host, auth=auth, retry=retry, timeout_s=TIMEOUT_S, hooks=[self.watch]
        )

        async def make() -> None:
            self.pusher = self.client.status_pusher(
                consistency=consistency,
                ambiguity_s=AMBIGUITY_S,
                min_interval_s=min_interval_s,
                skip_unchanged=skipping,
                deadline_s=deadline_s,
                max_pending_devices=room,
                on_full="raise",
            )

        self.run(make())

    def run(self, program: Coroutine[Any, Any, Any]) -> Any:
        async def settled() -> Any:
            result = await program
            await self.loop.settle()
            return result

        return self.loop.run_until_complete(settled())

    def watch(self, event: object) -> None:
        match event:
            case StatusAccepted(seq=seq):
                self.values[seq] = self.accepting
            case StatusSent(seq=seq) | StatusSuperseded(seq=seq) | StatusFailed(seq=seq):
                assert seq not in self.outcomes, f"status {seq} has two outcomes"
                self.outcomes[seq] = type(event).__name__
            case _:
                pass

    async def look_up(self, device_id: str) -> HmacAuth | None:
        await asyncio.sleep(0)  # as a vault: other things happen meanwhile
        return self.keys.get(device_id)

    def next_pages(self, equal: int | None) -> int:
        # Equal statuses only where that is what is looked at: else each is another, so that order can be judged.
        self.pages += 1
        return self.pages if equal is None or not self.skipping else equal

    # What may happen

    @rule(device_id=st.sampled_from(DEVICES), equal=st.none() | st.integers(1, 2))
    def put(self, device_id: str, equal: int | None) -> None:
        self.accepting = (device_id, self.next_pages(equal))

        async def put() -> None:
            try:
                await self.pusher.put(device_id, status(self.accepting[1]))
            except PusherFullError:
                assert self.pusher.stats().active_devices >= 2

        self.run(put())

    @rule(device_id=st.sampled_from(DEVICES), equal=st.none() | st.integers(1, 2))
    def push(self, device_id: str, equal: int | None) -> None:
        self.accepting = (device_id, self.next_pages(equal))
        before = len(self.values)

        async def push() -> None:
            task = asyncio.create_task(self.pusher.push(device_id, status(self.accepting[1])))
            await asyncio.sleep(0)
            if len(self.values) > before:
                self.pushes.append((task, max(self.values)))
            else:
                await asyncio.wait({task})
                assert isinstance(task.exception(), PusherFullError)

        self.run(push())

    @precondition(lambda self: self.pushes)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task, seq = self.pushes.pop(data.draw(st.integers(0, len(self.pushes) - 1)))

        async def cancel() -> None:
            before = self.pusher.stats().accepted
            task.cancel()
            await asyncio.wait({task})
            if self.pusher.stats().accepted < before:
                self.withdrawn.add(seq)

        self.run(cancel())

    @precondition(lambda self: self.host.held)
    @rule(data=st.data(), what=st.sampled_from(sorted(REPLIES)))
    def answer(self, data: st.DataObject, what: str) -> None:
        device_id = data.draw(st.sampled_from(sorted(self.host.held)))
        reply = REPLIES[what]
        if device_id in self.refused:
            reply = REFUSALS[self.refused[device_id]]
        if reply.status in {403, 404}:
            self.touched.add(device_id)

        async def answer() -> None:
            self.host.held[device_id][1].set_result(reply)

        self.run(answer())

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0, AMBIGUITY_S, 4.0]))
    def advance(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(devices=st.sets(st.sampled_from(DEVICES), min_size=1), how=st.sampled_from(sorted(REFUSALS)))
    def refuse(self, devices: set[str], how: str) -> None:
        self.refused |= dict.fromkeys(devices, how)

    @precondition(lambda self: self.are_own)
    @rule(device_id=st.sampled_from(DEVICES))
    def remove_credentials(self, device_id: str) -> None:
        self.keys.pop(device_id, None)

    @precondition(lambda self: self.are_own)
    @rule(device_id=st.sampled_from(DEVICES), like=st.none() | st.sampled_from(DEVICES))
    def give_credentials(self, device_id: str, like: str | None) -> None:
        shared = None if like is None else self.keys.get(like)
        self.keys[device_id] = shared or HmacAuth(f"new-{device_id}", "secret")

    @precondition(lambda self: self.refused)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        del self.refused[data.draw(st.sampled_from(sorted(self.refused)))]

    @rule()
    def refresh(self) -> None:
        async def refresh() -> None:
            self.client.refresh_credentials()

        self.run(refresh())

    # What must hold

    @invariant()
    def one_in_flight_for_each_device(self) -> None:
        assert not self.host.max_in_flight or max(self.host.max_in_flight.values()) == 1

    @invariant()
    def no_older_status_is_sent_after_a_newer_one(self) -> None:
        if self.skipping:
            return
        # After one that was given up, the last acknowledged one may have to be asserted again.
        given_up = {self.values[seq] for seq, outcome in self.outcomes.items() if outcome == "StatusFailed"}
        for device_id in DEVICES:
            sent = [seen.pages for seen in self.host.seen if seen.device_id == device_id]
            sent = [pages for pages in sent if (device_id, pages) not in given_up]
            assert sent == sorted(sent)

    @invariant()
    def strict_never_lets_an_older_status_overwrite_a_newer_one(self) -> None:
        if self.strict and not self.skipping:
            assert self.host.stale_overwrites() == 0

    @invariant()
    def the_account_adds_up(self) -> None:
        stats = self.pusher.stats()
        pending = {status.seq for status in self.pusher._engine.unsettled()}
        assert set(self.values) == set(self.outcomes) | pending | self.withdrawn
        assert not pending & set(self.outcomes)
        assert not self.withdrawn & set(self.outcomes)
        assert stats.accepted == len(self.values) - len(self.withdrawn)
        assert stats.pending == len(pending)
        assert stats.sent + stats.superseded + stats.failed == len(self.outcomes)
        limiter = self.client._channel.executor.limiter
        assert stats.in_flight == limiter.in_flight + limiter.overdue == sum(self.host.in_flight.values())

    @invariant()
    def held_accounts_are_counted(self) -> None:
        accounts = self.client._channel.executor.accounts
        assert accounts.held == sum(account.is_held for account in accounts.troubled)
        assert 0 <= self.pusher.stats().held_accounts <= len(DEVICES) + 2
        assert len(self.pusher._engine.scheduler.held.probes) <= accounts.held + self.pusher.stats().in_flight

    @invariant()
    def nothing_spins(self) -> None:
        steps, self.steps = getattr(self, "steps", 0), self.loop.steps
        assert self.loop.steps - steps < 20_000

    @invariant()
    def nothing_broke(self) -> None:
        assert not self.failures, self.failures
        assert self.pusher._engine.occupancy.crash is None

    def teardown(self) -> None:
        if not hasattr(self, "pusher"):
            return
        try:
            self.finish()
        finally:
            self.loop.close()

    def finish(self) -> None:
        self.host.holding = False
        self.refused.clear()
        for device_id in DEVICES:
            self.keys.setdefault(device_id, HmacAuth(f"last-{device_id}", "secret"))

        async def finish() -> None:
            for _, told in self.host.held.values():
                told.set_result(OK)
            if self.pusher.stats().held_accounts:
                await asyncio.sleep(RESUMED_WITHIN_S)
            stats = await self.pusher.drain(timeout_s=120.0)
            assert (stats.pending, stats.active_devices) == (0, 0), "it does not come to an end"
            await self.pusher.aclose()
            await asyncio.sleep(2 * TIMEOUT_S)  # what was to be written late is written
            await self.client.aclose()

        self.run(finish())
        self.nothing_broke()
        self.one_in_flight_for_each_device()
        self.strict_never_lets_an_older_status_overwrite_a_newer_one()
        self.the_account_adds_up()
        for device_id in DEVICES:
            accepted = [seq for seq, (of, _) in self.values.items() if of == device_id]
            newest = max((seq for seq in accepted if seq not in self.withdrawn), default=None)
            if newest is None or device_id in self.touched:
                continue
            # Refused credentials give nothing up; only a deadline does.
            assert self.deadline_s is not None or self.outcomes[newest] == "StatusSent"
            if self.outcomes[newest] == "StatusSent":
                assert self.host.newest[device_id] == self.values[newest][1]
        assert not asyncio.all_tasks(self.loop)


LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
# The same examples every time, so that nobody meets another's luck; the long form looks for new ones.
PusherMachine.TestCase.settings = settings(
    max_examples=1_000 if LONG else 120,
    stateful_step_count=60,
    derandomize=not LONG,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestPusherMachine = PusherMachine.TestCase
