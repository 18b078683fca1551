"""A file that is read again after it has changed, one with a secret, and the check of its rights."""

from __future__ import annotations

import os
import shlex
import stat
import sys
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field

from printos_async.cli.terminal.output import CommandError, complain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

# A file is read again once nothing was written for so long, and not while half of it is there.
QUIET_S = 0.2
# A write within a tick of the file system's clock may leave the times as they are, so a file that was read so soon
# after a change is read once more.
_TICK_S = 1.0
_MAX_SECRET_BYTES = 64 * 1024


@define(eq=False, repr=False)
class RereadFile(Generic[T]):
    """A file whose content may be replaced while the command runs, by renaming or in place.

    A pipe, such as a shell's ``<(...)``, is read once.

    Attributes:
        content: What was last read without a problem.

    Args:
        path: The file.
        parse: Returns the content; raises ``CommandError`` if it cannot be used, with a message without secrets.
        content_name: What the file holds, for messages, such as "the secret".
        must_be_private: Refuse a file that other users may read; otherwise standard error warns of it.
        max_bytes: A longer file is refused.
        clock: Returns the seconds since the epoch, with which the file's times are compared.

    Raises:
        CommandError: It cannot be read or used.
    """

    _path: Path
    _parse: Callable[[bytes], T]
    _content_name: str = field(kw_only=True)
    _must_be_private: bool = field(kw_only=True)
    _max_bytes: int = field(kw_only=True)
    _clock: Callable[[], float] = field(default=time.time, kw_only=True)
    _problem: str = field(default="", init=False)
    _status: os.stat_result = field(init=False)
    _read_s: float = field(default=0.0, init=False)
    content: T = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.content = self._parse(self._read())

    def has_changed(self) -> bool:
        """Return whether there is something new to read; not while the file is being written."""
        if not stat.S_ISREG(self._status.st_mode):
            return False
        try:
            status = self._path.stat()
        except OSError as error:
            self._complain(f"cannot read {self._path}: {error.strerror}")
            return False
        if not stat.S_ISREG(status.st_mode):
            self._complain(f"cannot read {self._path}: it is not a regular file any more")
            return False
        changed_s, now_s = _changed_s(status), self._clock()
        if _version(status) == _version(self._status):
            return abs(self._read_s - changed_s) < _TICK_S <= abs(now_s - changed_s)
        return abs(now_s - changed_s) >= QUIET_S  # a time in the future is of another machine's clock

    def read_again(self) -> None:
        """Read the file; one that cannot be used leaves the content as it was, and is reported once."""
        try:
            self.content = self._parse(self._read())
        except _BeingWrittenError:
            pass
        except CommandError as error:
            self._complain(str(error))
        else:
            self._problem = ""

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                self._read_s, self._status = self._clock(), status
                self._check_rights(status)
                data = file.read(self._max_bytes + 1)
                is_torn = stat.S_ISREG(status.st_mode) and _version(status) != _version(
                    os.fstat(file.fileno())
                )
        except OSError as error:
            raise CommandError(f"cannot read {self._path}: {error.strerror}") from error
        if is_torn:
            raise _BeingWrittenError(f"{self._path} was written while it was read; run the command again")
        if len(data) > self._max_bytes:
            raise CommandError(f"{self._path} has more than {self._max_bytes:,} bytes")
        return data

    def _check_rights(self, status: os.stat_result) -> None:
        # On Windows modes do not say who may read.
        if sys.platform == "win32" or not stat.S_ISREG(status.st_mode):
            return
        is_own = status.st_uid == os.geteuid()  # a file of root may be meant for this process's group
        if status.st_mode & (stat.S_IROTH | stat.S_IRGRP if is_own else stat.S_IROTH):
            mode, who = stat.S_IMODE(status.st_mode), "go" if is_own else "o"
            problem = f"other users may read {self._content_name} in {self._path} (mode {mode:04o})"
            remedy = f"take the right away with chmod {who}-r {shlex.quote(str(self._path))}"
            error = CommandError(problem, remedy=remedy)
            if self._must_be_private:
                raise error
            complain(f"warning: {error}")

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            complain(f"{problem}; what was read before is used on")


class _BeingWrittenError(CommandError):
    """The file changed while it was read."""


class SecretFile(RereadFile[str]):
    """A secret in a file, without the line end that editors add; read again when it is asked for and has changed.

    Warns on standard error if other users may read the file.

    Args:
        path: The file.

    Raises:
        CommandError: The file cannot be read, or holds no secret or more than one line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            self._secret,
            content_name="the secret",
            must_be_private=False,
            max_bytes=_MAX_SECRET_BYTES,
        )

    def __call__(self) -> str:
        """Return the secret."""
        if self.has_changed():
            self.read_again()
        return self.content

    def _secret(self, data: bytes) -> str:
        try:
            secret = data.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            secret = ""
        if not secret:
            raise CommandError(f"{self._path} holds no secret; it must be one line of UTF-8 text")
        if "\n" in secret:
            raise CommandError(
                f"{self._path} has more than one line; it must hold the secret and nothing else"
            )
        return secret


def _version(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _changed_s(status: os.stat_result) -> float:
    # Some programs set the time of the last write back; the other one cannot be set.
    return max(status.st_mtime, status.st_ctime)
