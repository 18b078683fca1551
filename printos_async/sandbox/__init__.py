"""A PrintOS server for tests: real sockets, faults on request, and a record of everything it received.

Needs the extra ``sandbox``: ``pip install 'printos-async[sandbox]'``.
"""

from __future__ import annotations

from ._auth import RefusalCause
from ._faults import FaultKind, Faults, MalformedKind, Operation
from ._records import AppliedStatus, RecordedRequest, SandboxDevice

try:
    from ._sandbox import Sandbox
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"starlette", "uvicorn"}:
        raise
    message = "the sandbox needs its extra: pip install 'printos-async[sandbox]'"
    raise ModuleNotFoundError(message, name=error.name) from error

__all__ = [
    "AppliedStatus",
    "FaultKind",
    "Faults",
    "MalformedKind",
    "Operation",
    "RecordedRequest",
    "RefusalCause",
    "Sandbox",
    "SandboxDevice",
]
