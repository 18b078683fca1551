"""What tracebacks show, with the values of locals."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

from rich.pretty import pretty_repr

from printos_async import PrintOSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, and the members of groups, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
        yield one


def assert_hidden_in_traceback(error: BaseException, secrets: Iterable[str]) -> None:
    """Look at an error and its whole chain as the standard library and rich show them, locals included."""
    texts: list[str] = []
    for one in chain_of(error):
        texts += traceback.TracebackException.from_exception(one, capture_locals=True).format(chain=False)
        for frame, _ in traceback.walk_tb(one.__traceback__):
            # rich looks into attrs classes that have no repr of their own.
            texts += [pretty_repr(value) for value in frame.f_locals.values()]
    shown = "".join(texts)
    assert [secret for secret in secrets if secret in shown] == []


async def failures(
    call: Callable[[], Any], *, cancel_when: Callable[[], Any] | None = None
) -> list[BaseException]:
    """Return what two calls raise: the second one finds a connection, or a token, of the first."""
    raised: list[BaseException] = []
    for _ in range(2):
        task = asyncio.ensure_future(call())
        if cancel_when is not None:
            await cancel_when()
            task.cancel()
        try:
            await task
        except (PrintOSError, asyncio.CancelledError) as error:
            raised.append(error)
    return raised
