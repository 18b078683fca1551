"""Connection options: the server and the credentials, from options and then from the environment."""

import os
import re
import shlex
import stat
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from attrs import frozen

from printos_async._client import PrintOSClient
from printos_async._config import PRODUCTION_URL, auth_from_env, parse_base_url
from printos_async._errors import ConfigurationError
from printos_async._events import Hook
from printos_async._execution.concurrency import ConcurrencyLimit
from printos_async._execution.retry import RetryPolicy
from printos_async.cli.terminal.output import CommandError, complain

_MAX_SECRET_BYTES = 64 * 1024
_PANEL = "Connection"
_WHERE = "--base-url or PRINTOS_BASE_URL"
_USERINFO = re.compile(r"\s*[^/?#]*//[^/?#]*@")
_option = partial(typer.Option, rich_help_panel=_PANEL)


@frozen(kw_only=True)
class Connection:
    """The options of every command that needs to know the server and the credentials."""

    base_url: Annotated[
        str | None,
        _option(help=f"URL of PrintOS; by default PRINTOS_BASE_URL, else {PRODUCTION_URL}."),
    ] = None
    key: Annotated[
        str | None,
        _option(
            help="Device key; by default PRINTOS_KEY. Its secret: --secret-file, PRINTOS_SECRET or a prompt."
        ),
    ] = None
    secret_file: Annotated[Path | None, _option(help="File that holds the key's secret.")] = None
    login: Annotated[
        str | None,
        _option(
            help="Device login; by default PRINTOS_LOGIN. Its password: --password-file, PRINTOS_PASSWORD or a prompt."
        ),
    ] = None
    password_file: Annotated[Path | None, _option(help="File that holds the login's password.")] = None
    account: Annotated[
        str | None,
        _option(
            help="Name to which an outbox binds what it keeps; by default PRINTOS_ACCOUNT, else URL and credentials."
        ),
    ] = None
    insecure_http: Annotated[
        bool,
        _option(
            "--insecure-http",
            help="Allow plain HTTP to another machine; the network can then read credentials and statuses.",
        ),
    ] = False

    def make_client(self, *, hooks: Iterable[Hook] = ()) -> PrintOSClient:
        """Return a client made from these options and the environment; may prompt for the secret.

        Call it outside of the event loop, which the prompt would block.

        Raises:
            ConfigurationError: A setting is missing, contradictory or out of range.
            CommandError: A file cannot be read, options contradict each other, or the base URL is unsafe.
        """
        base_url = self.base_url or os.environ.get("PRINTOS_BASE_URL") or PRODUCTION_URL
        auth = auth_from_env(self._credentials(os.environ))
        _check_base_url(base_url, allow_insecure_http=self.insecure_http)
        return PrintOSClient(
            base_url,
            auth=auth,
            account=self.account or os.environ.get("PRINTOS_ACCOUNT") or None,
            hooks=hooks,
            allow_insecure_http=self.insecure_http,
            **self._request_settings(),
        )

    def _request_settings(self) -> dict[str, Any]:
        """Return more arguments of the client, which the groups below add."""
        return {}

    def _credentials(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the credentials' environment variables, overridden by the options."""
        by_key = self.key is not None or self.secret_file is not None
        by_login = self.login is not None or self.password_file is not None
        if by_key and by_login:
            raise CommandError("--key and --login exclude each other; give one of them")
        names = ["PRINTOS_KEY", "PRINTOS_SECRET", "PRINTOS_LOGIN", "PRINTOS_PASSWORD"]
        if by_key or by_login:  # then the other pair of the environment is ignored
            names = names[:2] if by_key else names[2:]
        found = {name: env[name] for name in names if env.get(name)}
        options = {"PRINTOS_KEY": self.key, "PRINTOS_LOGIN": self.login}
        found |= {name: value for name, value in options.items() if value is not None}
        for name, path in (("PRINTOS_SECRET", self.secret_file), ("PRINTOS_PASSWORD", self.password_file)):
            if path is not None:
                found[name] = read_secret(path)
        if sys.stdin is not None and sys.stdin.isatty():
            for name, secret in (("PRINTOS_KEY", "PRINTOS_SECRET"), ("PRINTOS_LOGIN", "PRINTOS_PASSWORD")):
                if name in found and secret not in found:
                    found[secret] = typer.prompt(f"{secret} for {found[name]}", hide_input=True, err=True)
        return found


@frozen(kw_only=True)
class Requests(Connection):
    """The options of every command that sends requests."""

    timeout_s: Annotated[
        float, _option("--timeout", min=0.001, help="Timeout of each request, in seconds.")
    ] = 10.0
    max_attempts: Annotated[int, _option(min=1, help="Maximum number of requests for one status.")] = 5

    def _request_settings(self) -> dict[str, Any]:
        return {"timeout_s": self.timeout_s, "retry": RetryPolicy(max_attempts=self.max_attempts)}


@frozen(kw_only=True)
class ConcurrentRequests(Requests):
    """The options of every command that sends many requests at once."""

    max_in_flight: Annotated[int, _option(min=1, help="Maximum number of requests in flight.")] = 64

    def _request_settings(self) -> dict[str, Any]:
        limit = ConcurrencyLimit(maximum=self.max_in_flight, initial=self.max_in_flight)
        return {**super()._request_settings(), "limit": limit}


def _check_base_url(base_url: str, *, allow_insecure_http: bool) -> None:
    # Before the library, whose errors name the arguments of a constructor instead of options.
    if _USERINFO.match(base_url):
        raise CommandError(
            f"the base URL ({_WHERE}) must not hold credentials; give them as --key with PRINTOS_SECRET"
        )
    try:
        parse_base_url(base_url, allow_insecure_http=True)
    except ConfigurationError as error:
        raise CommandError(f"the base URL ({_WHERE}) cannot be used: {error}") from error
    if not allow_insecure_http and is_insecure(base_url):
        raise CommandError(
            f"the base URL ({_WHERE}) would send credentials and statuses in clear text; use https, "
            "or add --insecure-http where the network itself is trusted"
        )


def is_insecure(base_url: str) -> bool:
    """Return whether a valid base URL means plain HTTP to another machine, which clients refuse by default."""
    try:
        parse_base_url(base_url, allow_insecure_http=False)
    except ConfigurationError:
        return True
    return False


def read_secret(path: Path) -> str:
    """Return the secret in a file, without the line end that editors add.

    Warns on standard error if other users may read the file.

    Raises:
        CommandError: The file cannot be read, or holds no secret.
    """
    try:
        with path.open("rb") as file:
            _warn_of_other_readers(path, os.fstat(file.fileno()))
            content = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error
    try:
        secret = content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(content) > _MAX_SECRET_BYTES:
        raise CommandError(f"{path} holds no secret; it must be one line of UTF-8 text")
    return secret


def _warn_of_other_readers(path: Path, status: os.stat_result) -> None:
    if sys.platform == "win32" or not stat.S_ISREG(status.st_mode):
        return
    # A file of root may be meant for this process's group.
    is_own = status.st_uid == os.geteuid()
    if status.st_mode & (stat.S_IROTH | stat.S_IRGRP if is_own else stat.S_IROTH):
        complain(
            f"warning: other users may read the secret in {path} (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"take the right away with chmod {'go' if is_own else 'o'}-r {shlex.quote(str(path))}"
        )
