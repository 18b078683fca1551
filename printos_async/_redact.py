"""Keeps secrets out of texts that people and logs get to see."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "[redacted]"


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in a text, also where it was escaped for JSON or a URL."""
    for secret in sorted(secrets, key=len, reverse=True):
        forms = (
            secret,
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
            quote(secret, safe=""),
        )
        for form in forms:
            if form:
                text = text.replace(form, MASK)
    return text


def excerpt(text: str, secrets: Iterable[str], *, limit: int) -> str:
    """Give the redacted start of a text, at most ``limit`` characters."""
    secrets = tuple(secrets)
    # A secret that the first cut splits is longer than nothing and no longer recognisable: leave its length out.
    longest = max((6 * len(secret) for secret in secrets), default=0)
    window = text if len(text) <= limit + longest else text[: limit + longest]
    redacted = redact(window, secrets)
    if window is not text and longest:
        redacted = redacted[: max(len(redacted) - longest, 0)]
    return redacted[:limit]
