"""Network options: the proxy, and the files for TLS."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from attrs import field, frozen

from printos_async._errors import ConfigurationError
from printos_async._transport.proxy_url import ProxyUrl, proxy_from_env
from printos_async.cli.terminal.output import CommandError

from .tls_files import TlsFiles, require_readable

_option = partial(typer.Option, rich_help_panel="Network")


@frozen(kw_only=True)
class Network:
    """The options of every command that connects to a server."""

    proxy: Annotated[
        str | None,
        _option(
            metavar="URL",
            help="URL of an HTTP proxy, such as http://proxy:3128; by default PRINTOS_PROXY, the place for a URL with a password, else HTTPS_PROXY except for hosts in NO_PROXY.",
        ),
    ] = field(default=None, repr=False)
    ca_file: Annotated[
        Path | None,
        _option(
            envvar="PRINTOS_CA_FILE", help="PEM file of the authorities to trust instead of the usual ones."
        ),
    ] = None
    client_cert: Annotated[
        Path | None,
        _option(
            envvar="PRINTOS_CLIENT_CERT",
            help="PEM file of the certificate, with its chain, to show to servers that ask for one.",
        ),
    ] = None
    client_key: Annotated[
        Path | None,
        _option(
            envvar="PRINTOS_CLIENT_KEY",
            help="PEM file of the certificate's key, if it is not in the same file.",
        ),
    ] = None
    system_certificates: Annotated[
        bool,
        _option(
            "--system-certificates",
            help="Trust the operating system's authorities, and those of --ca-file, if it is given.",
        ),
    ] = False

    def network_settings(self, base_url: str) -> dict[str, Any]:
        """Return the client's arguments for this base URL: ``proxy`` and ``verify``. Do not keep them in a local.

        Raises:
            CommandError: The proxy's URL is not valid, or a file cannot be used.
        """
        return {"proxy": self._proxy(base_url), **self._verify(base_url)}

    def _proxy(self, base_url: str) -> str | None:
        url = self.proxy or proxy_from_env(base_url)
        try:
            ProxyUrl(url).parse()
        except ConfigurationError as error:
            where = "--proxy" if self.proxy else "PRINTOS_PROXY, or HTTPS_PROXY"
            raise CommandError(f"the proxy's URL ({where}) cannot be used: {error}") from None
        return url

    def _verify(self, base_url: str) -> dict[str, Any]:
        if self.client_key is not None and self.client_cert is None:
            raise CommandError(
                "a client key needs its certificate: add --client-cert or set PRINTOS_CLIENT_CERT"
            )
        files = (self.ca_file, self.client_cert, self.client_key)
        if not (any(files) or self.system_certificates):
            usual = os.environ.get("SSL_CERT_FILE")
            if usual and base_url.strip().lower().startswith("https:"):
                # Now, and not when each of the statuses in an outbox fails for it.
                require_readable(Path(usual), "the authorities of SSL_CERT_FILE")
            return {}
        return {"verify": TlsFiles(*files, has_system_certificates=self.system_certificates).context}
