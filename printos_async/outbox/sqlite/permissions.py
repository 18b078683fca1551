"""Checks of modes and owners: nobody else may read or replace the file of an outbox."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from printos_async._errors import OutboxError

if TYPE_CHECKING:
    from pathlib import Path


def check_file(path: Path) -> None:
    """Refuse a file that is not this user's own regular file.

    Raises:
        OutboxError: The text says what is wrong and what to do.
        OSError: It cannot be read.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise OutboxError(
            f"outbox {path} is a symlink, by which someone could have another file written to; "
            "give the path that it leads to, or delete the link"
        )
    if not stat.S_ISREG(found.st_mode):
        raise OutboxError(f"outbox {path} is not a regular file; give another path")
    if sys.platform != "win32" and found.st_uid != os.geteuid():
        raise OutboxError(
            f"outbox {path} belongs to another user (uid {found.st_uid}, this process has {os.geteuid()}); "
            "run as that user, change the owner, or give another path"
        )


def check_directory(directory: Path) -> None:
    """Refuse a directory in which another user could replace the outbox's file, or one above it.

    On Windows nothing is refused: access lists decide there, which a new directory inherits from its parent.

    Args:
        directory: Without symlinks.

    Raises:
        OutboxError: The text says which directory, what is wrong and what to do.
        OSError: One of the directories cannot be read.
    """
    if sys.platform == "win32":
        return
    for folder in (directory, *directory.parents):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise OutboxError(f"{folder} is not a directory; give another path for the outbox")
        if found.st_uid not in {0, os.geteuid()}:
            raise OutboxError(
                f"directory {folder} of the outbox belongs to another user (uid {found.st_uid}), who could replace "
                "the outbox's file; change the owner, or give another path"
            )
        others = bool(found.st_mode & stat.S_IWOTH)
        if not others and (not found.st_mode & stat.S_IWGRP or _is_own_group(found.st_gid)):
            continue
        # In a sticky directory such as /tmp nobody can rename another user's files, which is enough for the parents.
        if folder == directory or not found.st_mode & stat.S_ISVTX:
            whom = "every user" if others else f"the group {found.st_gid}"
            # No advice to change /tmp.
            change = (
                ""
                if found.st_mode & stat.S_ISVTX
                else f" or take the right away (chmod {'o' if others else 'g'}-w)"
            )
            raise OutboxError(
                f"directory {folder} of the outbox can be written to by {whom}, who could replace the outbox's "
                f"file; give a path in a directory of your own{change}"
            )


def _is_own_group(gid: int) -> bool:
    # On many systems each user has a group of the same name, and new directories are writable for that group.
    if sys.platform == "win32":
        return False
    import grp  # noqa: PLC0415  # Windows has none
    import pwd  # noqa: PLC0415

    if gid == 0 == os.geteuid():
        return True
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
