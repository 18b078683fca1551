"""Step of the credentials file: its rights and its lines; and whose credentials are checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from printos_async.cli.credentials.credentials_file import CredentialsFile
from printos_async.cli.credentials.lines import DEFAULT_DEVICE
from printos_async.cli.credentials.reread_file import is_readable_by_others, remedy
from printos_async.cli.terminal.output import CommandError, counted

from .finding import Finding, failed, ok

if TYPE_CHECKING:
    from pathlib import Path

    from printos_async._auth import DeviceCredentials, ReadyAuth

CREDENTIALS_FILE = "credentials file"


def read_credentials_file(
    path: Path, device_id: str | None
) -> tuple[Finding, ReadyAuth | None, DeviceCredentials | None]:
    """Return the finding of a file, a device's credentials to check, and the credentials of all devices.

    By default those of ``*`` are checked, else those of the first device. A device without a line has those of ``*``,
    as everywhere. What cannot be used is None.
    """
    try:
        file = CredentialsFile(path)
    except CommandError as error:
        to_do = _remedy(path)
        return failed(CREDENTIALS_FILE, str(error).removesuffix(f"; {to_do}"), to_do), None, None
    wanted = device_id or (DEFAULT_DEVICE if file.has_default else file.device_ids[0])
    if wanted not in file.device_ids and file.has_default:
        wanted = DEFAULT_DEVICE
    auth = file.auth_of(wanted)
    if auth is None:
        problem = f"{path} has no line for {wanted}, and none for {DEFAULT_DEVICE}"
        finding = failed(CREDENTIALS_FILE, problem, f"add a line for {wanted}")
        return finding, None, file.device_credentials()
    devices = counted(len(set(file.device_ids) - {DEFAULT_DEVICE}), "device")
    default = (
        f"and {DEFAULT_DEVICE}"
        if file.has_default
        else f"and no {DEFAULT_DEVICE}, which printos devices needs"
    )
    finding = ok(CREDENTIALS_FILE, f"{path} has {devices} {default}; the credentials of {wanted} are checked")
    return finding, auth, file.device_credentials()


def _remedy(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "check the path in --credentials or PRINTOS_CREDENTIALS, and that this user may read the file"
    if is_readable_by_others(status):
        return remedy(path, status).partition("; ")[2]
    return "correct these lines; nothing in the file is used until all can be read"
