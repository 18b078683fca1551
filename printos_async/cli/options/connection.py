"""Connection options: the server and the credentials, from options and then from the environment."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from attrs import frozen

from printos_async._auth import HmacAuth, SessionTokenAuth
from printos_async._client import PrintOSClient
from printos_async._config import PRODUCTION_URL, auth_from_env, parse_base_url
from printos_async._errors import ConfigurationError
from printos_async._events import Hook
from printos_async._execution.concurrency import ConcurrencyLimit
from printos_async._execution.retry import RetryPolicy
from printos_async.cli.credentials.credentials_file import CredentialsFile
from printos_async.cli.credentials.reread_file import SecretFile
from printos_async.cli.terminal.output import CommandError

from .network import Network

_PANEL = "Connection"
_WHERE = "--base-url or PRINTOS_BASE_URL"
_CREDENTIALS = ("PRINTOS_KEY", "PRINTOS_SECRET", "PRINTOS_LOGIN", "PRINTOS_PASSWORD")
_CREDENTIAL_OPTIONS = ("key", "secret_file", "login", "password_file")
_USERINFO = re.compile(r"\s*[^/?#]*//[^/?#]*@")
_option = partial(typer.Option, rich_help_panel=_PANEL)


@frozen(kw_only=True)
class Connection(Network):
    """The options of every command that needs to know the server and the credentials."""

    base_url: Annotated[str, _option(envvar="PRINTOS_BASE_URL", help="URL of PrintOS.")] = PRODUCTION_URL
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
    credentials: Annotated[
        Path | None,
        _option(
            help="File with the credentials of each device, JSON lines or CSV; by default PRINTOS_CREDENTIALS."
        ),
    ] = None
    account: Annotated[
        str | None,
        _option(
            envvar="PRINTOS_ACCOUNT",
            help="Name under which an outbox stores statuses; by default it follows from URL and credentials.",
        ),
    ] = None
    insecure_http: Annotated[
        bool,
        _option(
            "--insecure-http",
            help="Allow plain HTTP to another machine; the network can then read credentials and statuses.",
        ),
    ] = False

    def make_client(self, *, hooks: Iterable[Hook] = (), needs_default: bool = False) -> PrintOSClient:
        """Return a client made from these options and the environment; may prompt for the secret.

        Call it outside of the event loop, which the prompt would block.

        Args:
            hooks: The client's hooks.
            needs_default: The command sends what concerns no single device.

        Raises:
            ConfigurationError: A setting is missing, contradictory or out of range.
            CommandError: A file cannot be read, options contradict each other, or the base URL is unsafe.
        """
        path = self.credentials_path(os.environ)
        if path is None:
            return self.make_client_with(self.single_auth(os.environ), hooks=hooks)
        file = CredentialsFile(path)
        if needs_default and not file.has_default:
            raise CommandError(
                f"{path} has no line for the device *, whose credentials sign what concerns no single device"
            )
        return self.make_client_with(file.device_credentials(), hooks=hooks)

    def make_client_with(self, auth: httpx.Auth | None, *, hooks: Iterable[Hook] = ()) -> PrintOSClient:
        """Return a client with these credentials in place of those of the options. Raises as ``make_client``."""
        _check_base_url(self.base_url, allow_insecure_http=self.insecure_http)
        return PrintOSClient(
            self.base_url,
            auth=auth,
            account=self.account,
            hooks=hooks,
            allow_insecure_http=self.insecure_http,
            **self._request_settings(),
            **self.network_settings(self.base_url),
        )

    def _request_settings(self) -> dict[str, Any]:
        """Return more arguments of the client, which the groups below add."""
        return {}

    def credentials_path(self, env: Mapping[str, str]) -> Path | None:
        """Return the path of the credentials file, None if there is none.

        Raises:
            CommandError: Other credentials are given besides.
        """
        path = self.credentials or env.get("PRINTOS_CREDENTIALS")
        if not path:
            return None
        given = self._given(_CREDENTIAL_OPTIONS) + [name for name in _CREDENTIALS if env.get(name)]
        if given:
            ours = "PRINTOS_CREDENTIALS" if self.credentials is None else "--credentials"
            raise CommandError(f"{ours} and {given[0]} exclude each other; give one of them")
        return Path(path)

    def single_auth(self, env: Mapping[str, str]) -> HmacAuth | SessionTokenAuth:
        """Return the credentials of the key or the login; may prompt for the secret.

        Raises:
            ConfigurationError: Both pairs are given, or half of one.
            CommandError: Nothing is given, a file cannot be read, or options contradict each other.
        """
        pair = self._pair(env)
        if not pair:
            raise CommandError(
                "no credentials are given; pass --key with --secret-file, --login with --password-file, or"
                " --credentials, or set PRINTOS_KEY with PRINTOS_SECRET, PRINTOS_LOGIN with PRINTOS_PASSWORD, or"
                " PRINTOS_CREDENTIALS"
            )
        return auth_from_env(pair)

    def _pair(self, env: Mapping[str, str]) -> dict[str, Any]:
        """Return the environment variables of a key or a login, overridden by the options.

        A file of a secret stands there as a function, which is asked again when PrintOS refuses the secret.
        """
        by_key, by_login = self._given(_CREDENTIAL_OPTIONS[:2]), self._given(_CREDENTIAL_OPTIONS[2:])
        if by_key and by_login:
            raise CommandError(f"{by_key[0]} and {by_login[0]} exclude each other; give one of them")
        names: tuple[str, ...] = _CREDENTIALS
        if by_key or by_login:  # then the other pair of the environment is ignored
            names = names[:2] if by_key else names[2:]
        found: dict[str, Any] = {name: env[name] for name in names if env.get(name)}
        files = (self.secret_file, self.password_file)
        secret, password = (None if file is None else SecretFile(file) for file in files)
        options = zip(_CREDENTIALS, (self.key, secret, self.login, password), strict=True)
        found |= {name: value for name, value in options if value is not None}
        if sys.stdin is not None and sys.stdin.isatty():
            for name, secret_name in (_CREDENTIALS[:2], _CREDENTIALS[2:]):
                if name in found and secret_name not in found:
                    prompt = f"{secret_name} for {found[name]}"
                    found[secret_name] = typer.prompt(prompt, hide_input=True, err=True)
        return found

    def _given(self, names: Iterable[str]) -> list[str]:
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]


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

    max_in_flight: Annotated[
        int | None,
        _option(
            min=1,
            help="Maximum number of requests in flight; by default it adapts to the server, up to 256.",
        ),
    ] = None
    max_rate: Annotated[
        float | None,
        _option(min=0.1, help="Maximum number of requests per second; no limit by default."),
    ] = None

    def _request_settings(self) -> dict[str, Any]:
        most = self.max_in_flight
        limit = None if most is None else ConcurrencyLimit(maximum=most, initial=most)
        return {**super()._request_settings(), "limit": limit, "max_rate_per_s": self.max_rate}


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
