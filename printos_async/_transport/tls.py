"""TLS failures in words: which certificate is refused, by whom, why, and what to do."""

from __future__ import annotations

import ssl

# The codes of OpenSSL's X509_verify_cert_error_string.
_REFUSED_HERE = {
    **dict.fromkeys(
        (2, 18, 19, 20, 21),
        "no trusted authority issued it; trust a company's own authority with verify= or --ca-file",
    ),
    9: "it is not valid yet; check this machine's clock",
    10: "it has expired, or one of its authorities has; the owner of the host has to renew it",
    62: "it is for another name; check the host",
    64: "it is for another address; check the host",
}
# The alerts of RFC 8446, section 6.2, that concern a client certificate.
_REFUSED_THERE = {
    "BAD_CERTIFICATE": "refuses the client certificate",
    "CERTIFICATE_EXPIRED": "refuses the client certificate, for it has expired",
    "CERTIFICATE_REQUIRED": "asks for a client certificate; give one with verify= or --client-cert",
    "CERTIFICATE_REVOKED": "refuses the client certificate, for it was revoked",
    "CERTIFICATE_UNKNOWN": "refuses the client certificate",
    # Before TLS 1.3 a missing client certificate has no alert of its own.
    "HANDSHAKE_FAILURE": "refuses the handshake: it may ask for a client certificate, or share no cipher",
    "PROTOCOL_VERSION": "does not speak this version of TLS",
    "UNKNOWN_CA": "refuses the client certificate, for it does not know its authority",
    "UNSUPPORTED_CERTIFICATE": "refuses the client certificate, for it is of another kind",
}


def tls_problem(error: ssl.SSLError, peer: str) -> str:
    """Return what was wrong with a TLS connection to ``peer``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # Not all of the system's own checks set these.
        code, message = getattr(error, "verify_code", 0), getattr(error, "verify_message", "") or str(error)
        problem = f"the certificate of {peer} is refused: certificate verify failed: {message}"
        return f"{problem}: {_REFUSED_HERE[code]}" if code in _REFUSED_HERE else problem
    reason = error.reason or ""
    if (words := _REFUSED_THERE.get(reason.rpartition("ALERT_")[2])) is not None:
        return f"{peer} {words} ({reason})"
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}:
        return f"{peer} does not speak TLS ({reason}); does its URL begin with http://?"
    return f"{peer}: {error}"
