"""Steps before the first byte: the name of the host or the proxy, and a TCP connection to it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from .finding import Finding, failed, ok

if TYPE_CHECKING:
    from printos_async._transport import Origin


async def check_name(peer: Origin, role: str, *, timeout_s: float) -> Finding:
    """Return whether a host has an address; ``role`` is ``server`` or ``proxy``."""
    remedy = f"check the host in {_setting(role)}, and this machine's DNS"
    try:
        async with asyncio.timeout(timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(
                peer.host, peer.port, type=socket.SOCK_STREAM
            )
    except TimeoutError:
        return failed("name", f"DNS did not answer for {peer.host} within {timeout_s:g} s", remedy)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or "it is no host name"
        return failed("name", f"the {role} {peer.host} has no address: {reason}", remedy)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if addresses == [peer.host]:
        return ok("name", f"the {role} is given by its address, {peer.host}")
    more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
    return ok("name", f"the {role} {peer.host} is {', '.join(addresses[:3])}{more}")


async def check_connection(peer: Origin, role: str, *, timeout_s: float) -> Finding:
    """Return whether a TCP connection can be made; no byte is sent over it."""
    where = f"the {role} {peer.host}, port {peer.port}"
    remedy = f"check host and port in {_setting(role)}, that the service runs, and the firewalls between"
    if role == "server":
        remedy += "; where the network has a proxy, set --proxy or PRINTOS_PROXY"
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(peer.host, peer.port)
    except TimeoutError:
        return failed("connection", f"no connection to {where} within {timeout_s:g} s", remedy)
    except ConnectionRefusedError:
        return failed("connection", f"{where} refuses connections", remedy)
    except OverflowError:  # of a port
        return failed("connection", f"no connection to {where}: ports end at 65535", remedy)
    except OSError as error:
        return failed("connection", f"no connection to {where}: {error.strerror or error}", remedy)
    writer.transport.abort()
    return ok("connection", f"{where} accepts connections")


def _setting(role: str) -> str:
    return "--proxy, PRINTOS_PROXY or HTTPS_PROXY" if role == "proxy" else "--base-url or PRINTOS_BASE_URL"
