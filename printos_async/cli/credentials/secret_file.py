"""A file that holds one secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from printos_async.cli.terminal.output import CommandError, complain

from .reread_file import RereadFile, is_readable_by_others, remedy

if TYPE_CHECKING:
    import os
    from pathlib import Path

_MAX_SECRET_BYTES = 64 * 1024


class SecretFile:
    """A secret in a file, without the line end that editors add; read again when it is asked for and has changed.

    Warns on standard error if other users may read the file.

    Args:
        path: The file.

    Raises:
        CommandError: The file cannot be read, or holds no secret.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = RereadFile(path, self._secret, check=self._check, max_bytes=_MAX_SECRET_BYTES)

    def __call__(self) -> str:
        """Return the secret."""
        if self._file.has_changed():
            self._file.read_again()
        return self._file.content

    def _check(self, status: os.stat_result) -> None:
        if is_readable_by_others(status):
            complain(f"warning: other users may read the secret in {self._path} {remedy(self._path, status)}")

    def _secret(self, data: bytes) -> str:
        try:
            secret = data.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            secret = ""
        if not secret:
            raise CommandError(f"{self._path} holds no secret; it must be one line of UTF-8 text")
        return secret
