"""A PrintOS server to try against: real sockets, faults on request, everything it saw on record.

Needs the extra ``sandbox``: ``pip install 'printos-async[sandbox]'``.
"""

from __future__ import annotations

from ._faults import FaultKind, Faults, MalformedKind, Operation
from ._records import AppliedStatus, RecordedRequest, SandboxDevice
from ._sandbox import Sandbox

__all__ = [
    "AppliedStatus",
    "FaultKind",
    "Faults",
    "MalformedKind",
    "Operation",
    "RecordedRequest",
    "Sandbox",
    "SandboxDevice",
]
