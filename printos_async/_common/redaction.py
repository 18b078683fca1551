"""Redaction: removes secrets from texts that reach people and logs."""

from __future__ import annotations

import html
import json
import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "[redacted]"
# A shorter secret is redacted only as a word of its own: one letter, replaced everywhere, would leave no text to read,
# and would still show where the secret's letters stand.
MIN_CHARS_ANYWHERE = 4
# Of httpcore, httpcore2 and hpack. At DEBUG they log headers, a login's Set-Cookie among them, and a proxy's password.
_LOGGERS_WITH_CREDENTIALS = (
    *(
        f"{package}.{part}"
        for package in ("httpcore", "httpcore2")
        for part in ("connection", "http11", "http2", "proxy", "socks")
    ),
    "hpack.hpack",
    "hpack.table",
)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text without its secrets, also where they were escaped."""
    return _replace(text, _forms(secrets))


def excerpt(text: str, secrets: Iterable[str], *, limit: int, cut: bool = False) -> str:
    """Return the redacted start of a text, at most ``limit`` characters; ``cut`` if its end is missing already."""
    forms = _forms(secrets)
    # A secret that is cut in two is no longer recognisable: leave the longest one's length out at the end.
    longest = max((len(form) for form, _ in forms), default=0)
    window = text[: limit + longest]
    redacted = _replace(window, forms)
    if longest and (cut or len(window) < len(text)):
        redacted = redacted[: max(len(redacted) - longest, 0)]
    return redacted[:limit]


def one_line(text: str, secrets: Iterable[str], *, limit: int) -> str:
    """Return the redacted start of a text on one line, without characters that a terminal would obey or hide."""
    # Redacted twice: a secret may hold the white space that goes, and one may appear where it went.
    line = " ".join(redact(text, secrets).split())
    shown = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return excerpt(shown, secrets, limit=limit)


def withhold_credentials_from_logs() -> None:
    """Make the libraries under httpx and httpx2 log without credentials, in the whole process."""
    for name in _LOGGERS_WITH_CREDENTIALS:
        logging.getLogger(name).addFilter(_withhold)  # which is idempotent


def _withhold(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    # Headers of a request are not logged; those of an answer, what a parser objects to, and the password of a SOCKS
    # proxy are.
    credentials = any(sign in text for sign in ("headers", "exception=", "auth="))
    if credentials or not record.name.startswith("httpcore"):
        record.msg, record.args = "%s [withheld: it can hold credentials]", (text.split(" ", 1)[0],)
    return True


def _replace(text: str, forms: Iterable[tuple[str, bool]]) -> str:
    for form, as_word in forms:
        word = rf"(?<!\w){re.escape(form)}(?!\w)"
        text = re.sub(word, MASK, text) if as_word else text.replace(form, MASK)
    return text


def _forms(secrets: Iterable[str]) -> list[tuple[str, bool]]:
    """Return the secrets as JSON, URLs, HTML, Python and a misread encoding would write them, longest first.

    Beside each form: whether it is redacted only as a word of its own.
    """
    forms: dict[str, bool] = {}
    for secret in secrets:
        utf_8 = secret.encode("utf-8", "surrogatepass")
        ascii_json = json.dumps(secret)[1:-1]
        plain = {secret, ascii_json, json.dumps(secret, ensure_ascii=False)[1:-1]}
        plain |= {_upper_escapes(ascii_json), repr(secret)[1:-1], repr(utf_8)[2:-1], utf_8.decode("latin-1")}
        plain |= {html.escape(secret), html.escape(secret).replace("&#x27;", "&#39;")}
        for url in (quote(utf_8, safe=""), quote(utf_8), quote_plus(utf_8)):
            plain |= {url, _lower_escapes(url)}
        as_word = len(secret) < MIN_CHARS_ANYWHERE
        for form in plain | {form.replace("/", "\\/") for form in plain}:  # as PHP writes JSON
            forms[form] = as_word and forms.get(form, True)
    forms.pop("", None)
    return sorted(forms.items(), key=lambda item: len(item[0]), reverse=True)


def _upper_escapes(text: str) -> str:
    return re.sub(r"\\u[0-9a-f]{4}", lambda match: "\\u" + match[0][2:].upper(), text)


def _lower_escapes(text: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), text)
