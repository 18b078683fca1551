"""TLS contexts made of files, which are read again when they change: certificates expire."""

import math
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from attrs import define, field

from printos_async.cli.credentials.hangup import reread_on_hangup
from printos_async.cli.terminal.output import CommandError, complain

# Size, times, and number of each file: enough to see that it was written or replaced, or that its rights have changed.
_FileStamp = tuple[int, int, int, int] | None
_Stamp = tuple[_FileStamp, ...]
# Files that could not be used are read again after this time even if they look the same: it may have been for a lack
# of file descriptors. Not for each connection, for reading takes milliseconds of the event loop's time.
_RETRY_S = 1.0


@define(eq=False, slots=False)
class TlsFiles:
    """Provider of contexts for new connections; those that are open keep theirs.

    Args:
        ca_file: Authorities to trust instead of the usual ones.
        certificate: The client certificate with its chain.
        key: Its key, if that is in another file.
        has_system_certificates: Trust the operating system's authorities.
        clock: Returns the seconds by which failed reads are repeated.

    Raises:
        CommandError: A file cannot be used, or the package for the system's certificates is missing.
    """

    _ca_file: Path | None
    _certificate: Path | None
    _key: Path | None
    _has_system_certificates: bool = field(default=False, kw_only=True)
    _clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    # When to read again files that could not be used and look the same.
    _retry_s: float = field(default=math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._stamp = self._look()
        self._context = self._load()
        reread_on_hangup.add(self)

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection; reads the files again if one has changed.

        Where they cannot be used, the context that worked is kept, and standard error says so once for each change.
        """
        stamp = self._look()
        if stamp != self._stamp or self._clock() >= self._retry_s:
            self._read(stamp, is_new=stamp != self._stamp)
        return self._context

    def read_again(self) -> None:
        """Read the files again now."""
        self._read(self._look(), is_new=True)

    def _read(self, stamp: _Stamp, *, is_new: bool) -> None:
        """Read the files; ``stamp`` was taken before, so that a change meanwhile is seen next time."""
        self._stamp, self._retry_s = stamp, math.inf
        try:
            self._context = self._load()
        except CommandError as error:
            self._retry_s = self._clock() + _RETRY_S
            if is_new:
                complain(f"{error}; new connections use what was read before")
        else:
            complain("the files for TLS were read again")

    def _look(self) -> _Stamp:
        return tuple(map(_stamp_of, (self._ca_file, self._certificate, self._key)))

    def _load(self) -> ssl.SSLContext:
        context = self._trusting()
        if self._certificate is not None:
            self._add_certificate(context, self._certificate)
        return context

    def _trusting(self) -> ssl.SSLContext:
        if self._has_system_certificates:
            context = _system_context()
        elif self._ca_file is None:
            return _usual_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._ca_file is not None:
            require_readable(self._ca_file, "the authorities")
            try:
                context.load_verify_locations(self._ca_file)
            except ssl.SSLError:
                raise CommandError(f"{self._ca_file} holds no certificate in PEM form (--ca-file)") from None
            except OSError as error:
                raise CommandError(
                    f"cannot read the authorities in {self._ca_file}: {error.strerror}"
                ) from None
        return context

    def _add_certificate(self, context: ssl.SSLContext, certificate: Path) -> None:
        key = self._key or certificate
        require_readable(certificate, "the client certificate")
        require_readable(key, "the client key")
        try:
            context.load_cert_chain(certificate, self._key, password=_refuse_password)
        except _EncryptedKeyError:
            raise CommandError(
                f"the key in {key} is encrypted; give one that is not, readable by this user alone"
            ) from None
        except ssl.SSLError as error:
            raise CommandError(
                f"the key in {key} does not belong to the certificate in {certificate}"
                if error.reason == "KEY_VALUES_MISMATCH"
                else f"{certificate} and {key} must hold a certificate and its key in PEM form (--client-cert)"
            ) from None
        except OSError as error:  # it was there a moment ago
            raise CommandError(f"cannot read {certificate} and {key}: {error.strerror}") from None


class _EncryptedKeyError(Exception):
    """OpenSSL asked for a password, which it would otherwise read from the terminal."""


def _refuse_password() -> str:
    raise _EncryptedKeyError


def require_readable(path: Path, content: str) -> None:
    """Raise ``CommandError`` if a file cannot be read; ``content`` is what it should hold."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise CommandError(f"cannot read {content} in {path}: {error.strerror}") from None


def _stamp_of(path: Path | None) -> _FileStamp:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _usual_context() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError too
        reason = error.strerror or error
    names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
    where = f"{os.environ[names[0]]} ({names[0]})" if names else "the package certifi"
    raise CommandError(f"cannot read the authorities in {where}: {reason}")


def _system_context() -> ssl.SSLContext:
    try:
        import truststore  # noqa: PLC0415  # only if asked for
    except ImportError:
        raise CommandError(
            "--system-certificates needs the package truststore: pip install 'printos-async[cli]'"
        ) from None
    context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context
