"""Certificate of the target server, and the authority that all clients trust."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Certificate:
    """Files in PEM form: the server's key and chain in one, and the authority's certificate."""

    server: Path
    authority: Path


@contextmanager
def made_certificate() -> Iterator[Certificate]:
    """Yield a certificate for the loopback address; its files are deleted at the end."""
    import trustme  # noqa: PLC0415 - measurements without TLS do without

    authority = trustme.CA()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        certificate = Certificate(Path(folder) / "server.pem", Path(folder) / "authority.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(certificate.server)
        )
        authority.cert_pem.write_to_path(str(certificate.authority))
        yield certificate
