"""Rules of HTTP that several layers need. No I/O, no clock of its own.

Source: RFC 9110.
"""

from __future__ import annotations

import ipaddress
import math
from datetime import UTC
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str | None, *, now_s: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for: it holds seconds or an HTTP date.

    Args:
        value: The header's value, None if it was not sent.
        now_s: Seconds since the epoch.

    Returns:
        Seconds to wait, 0 or more; None where the header is missing or unreadable.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.replace(".", "", 1).isdigit() and len(value) <= 32:
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    moment_s = parse_date(value)
    return None if moment_s is None else max(0.0, moment_s - now_s)


def parse_date(value: str | None) -> float | None:
    """Return an HTTP date in seconds since the epoch; None where it is missing or unreadable."""
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def is_intermediary_page(body: bytes, content_type: str | None = None) -> bool:
    """Return whether the body of a 2xx is HTML or XML: PrintOS sends neither."""
    return body.lstrip()[:1] == b"<" or "html" in (content_type or "").lower()


def server_time_s(date: str | None, *, age: str | None, under_way_s: float) -> float | None:
    """Return a server's time when its answer came, in seconds since the epoch; None if the answer does not tell.

    Args:
        date: Its ``Date``.
        age: Its ``Age``: a cache has kept the answer, and its ``Date`` is old.
        under_way_s: Seconds from sending to receiving. The date was written at some time between.
    """
    date_s = None if age else parse_date(date)
    # It is cut to whole seconds: half a second is missing on average.
    return None if date_s is None else date_s + 0.5 + under_way_s / 2


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its address or as ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
