"""Base classes of httpx2, which is optional: empty stand-ins where it is not installed.

httpx2 continues httpx under a new name, with the same interface and other classes. A class of ours that both accept
has a base of each; whatever is passed in is recognised by these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["AsyncBaseTransport", "AsyncByteStream", "AsyncHTTPTransport", "Auth", "Request", "Response"]

if TYPE_CHECKING:
    from httpx2 import AsyncBaseTransport, AsyncByteStream, AsyncHTTPTransport, Auth, Request, Response
else:
    try:
        from httpx2 import AsyncBaseTransport, AsyncByteStream, AsyncHTTPTransport, Auth, Request, Response
    except ImportError:
        # One for each: a class cannot have the same base twice, and none of them has an instance.
        AsyncBaseTransport, AsyncByteStream, AsyncHTTPTransport, Auth, Request, Response = (
            type(name, (), {}) for name in __all__
        )
