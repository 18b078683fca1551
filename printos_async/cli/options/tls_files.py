"""TLS contexts made of files, which are read again when they change: certificates expire."""

import ssl
from pathlib import Path
from weakref import WeakSet

import httpx

from printos_async.cli.terminal.output import CommandError, complain

# Size, time, and number of each file: enough to see that it was written or replaced.
_Stamp = tuple[tuple[int, int, int] | None, ...]


class TlsFiles:
    """Provider of contexts for new connections; those that are open keep theirs.

    Args:
        ca_file: Authorities to trust instead of the usual ones.
        certificate: The client certificate with its chain.
        key: Its key, if that is in another file.
        has_system_certificates: Trust the operating system's authorities.

    Raises:
        CommandError: A file cannot be used, or the package for the system's certificates is missing.
    """

    def __init__(
        self,
        ca_file: Path | None,
        certificate: Path | None,
        key: Path | None,
        *,
        has_system_certificates: bool = False,
    ) -> None:
        self._ca_file = ca_file
        self._certificate = certificate
        self._key = key
        self._has_system_certificates = has_system_certificates
        self._stamp = self._look()
        self._context = self._load()
        _all.add(self)

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection; reads the files again if one has changed.

        Where they cannot be used, the context that worked is kept, and standard error says so once for each change.
        """
        stamp = self._look()
        if stamp != self._stamp:
            # Noted before the files are read: a change meanwhile is seen next time.
            self._stamp = stamp
            self.reload()
        return self._context

    def reload(self) -> None:
        """Read the files again now."""
        try:
            self._context = self._load()
        except CommandError as error:
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
            return httpx.create_ssl_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._ca_file is not None:
            _require_readable(self._ca_file, "the authorities")
            try:
                context.load_verify_locations(self._ca_file)
            except ssl.SSLError:
                raise CommandError(f"{self._ca_file} holds no certificate in PEM form (--ca-file)") from None
        return context

    def _add_certificate(self, context: ssl.SSLContext, certificate: Path) -> None:
        key = self._key or certificate
        _require_readable(certificate, "the client certificate")
        _require_readable(key, "the client key")
        try:
            context.load_cert_chain(certificate, self._key, password=_refuse_password)
        except _EncryptedKeyError:
            problem = f"the key in {key} is encrypted; give one that is not, readable by this user alone"
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                problem = f"the key in {key} does not belong to the certificate in {certificate}"
            else:
                problem = (
                    f"{certificate} and {key} must hold a certificate and its key in PEM form (--client-cert)"
                )
        else:
            return
        raise CommandError(problem)


class _EncryptedKeyError(Exception):
    """OpenSSL asked for a password, which it would otherwise read from the terminal."""


def _refuse_password() -> str:
    raise _EncryptedKeyError


def _require_readable(path: Path, content: str) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise CommandError(f"cannot read {content} in {path}: {error.strerror}") from None


def _stamp_of(path: Path | None) -> tuple[int, int, int] | None:
    try:
        status = None if path is None else path.stat()
    except OSError:
        return None
    return None if status is None else (status.st_size, status.st_mtime_ns, status.st_ino)


def _system_context() -> ssl.SSLContext:
    try:
        import truststore  # noqa: PLC0415  # only if asked for
    except ImportError:
        raise CommandError(
            "--system-certificates needs the package truststore: pip install 'printos-async[cli]'"
        ) from None
    context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context


_all: WeakSet[TlsFiles] = WeakSet()


def read_tls_files_again() -> None:
    """Read all files for TLS of this process again, for a signal."""
    for files in tuple(_all):
        files.reload()
