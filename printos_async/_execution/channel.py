"""Channel to one PrintOS: checks a client's settings, and builds the layers that all its calls share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from printos_async._api.generated_client import GENERATED_CLIENT
from printos_async._api.requests import Operations
from printos_async._api.responses import Answers
from printos_async._auth import Accounts, AnyAuth, DeviceAccounts, DeviceCredentials
from printos_async._common.checks import require_number, require_type
from printos_async._config import check_account, parse_base_url, tenant_of
from printos_async._events import Hooks

from .attempt import AttemptRunner
from .auth_flow import AuthFlow
from .concurrency import ConcurrencyLimit
from .executor import Executor
from .retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from printos_async._api.generated_client import GeneratedClient
    from printos_async._config import Tenant
    from printos_async._events import Hook
    from printos_async._transport import Transport


class Channel:
    """The layers below a client; ``PrintOSClient`` describes the settings.

    Args:
        make_transport: Returns what carries the requests; called in the event loop in which they are sent.
        clock: Returns the seconds from which latencies, and with them the concurrency limit, are taken.
        generated: Describes the requests, and has the models of the answers.

    Attributes:
        base_url: Origin and path to which all requests go.
        timeout_s: Seconds for one attempt.
        operations: Encodes the requests of the operations.
        answers: Decodes their answers.
        attempts: Sends one request; bound to one event loop and process, and to be closed.
        executor: Makes calls, with permits and retries.

    Raises:
        ConfigurationError: A setting is missing, contradictory or unsafe.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: AnyAuth | None,
        account: str | None,
        timeout_s: float,
        retry: RetryPolicy | None,
        limit: ConcurrencyLimit | None,
        max_rate_per_s: float | None,
        make_transport: Callable[[], Transport],
        hooks: Iterable[Hook],
        max_body_bytes: int,
        allow_insecure_http: bool,
        clock: Callable[[], float] = time.perf_counter,
        generated: GeneratedClient = GENERATED_CLIENT,
    ) -> None:
        origin, base_path = parse_base_url(base_url, allow_insecure_http=allow_insecure_http)
        require_number("timeout_s", timeout_s, 0.001)
        require_number("max_body_bytes", max_body_bytes, 0, whole=True)
        if max_rate_per_s is not None:
            require_number("max_rate_per_s", max_rate_per_s, 0.1)
        require_type(
            "auth", auth, AnyAuth | None, "HmacAuth(key, secret) or another httpx.Auth or httpx2.Auth"
        )
        check_account(account)
        require_type("retry", retry, RetryPolicy | None, "RetryPolicy")
        require_type("limit", limit, ConcurrencyLimit | None, "ConcurrencyLimit")
        self.base_url = f"{origin}{base_path}"
        self.timeout_s = timeout_s
        self._auth = auth
        self._account = account
        all_hooks = Hooks(hooks)
        self.operations = Operations(base_path, generated)
        self.answers = Answers(max_body_bytes=max_body_bytes, hooks=all_hooks, generated=generated)
        self.attempts = AttemptRunner(
            origin=origin,
            accounts=DeviceAccounts(auth) if isinstance(auth, DeviceCredentials) else Accounts(auth),
            hooks=all_hooks,
            auth_flow=AuthFlow(
                origin, max_body_bytes=max_body_bytes, allow_insecure_http=allow_insecure_http
            ),
            make_transport=make_transport,
            timeout_s=timeout_s,
            max_body_bytes=max_body_bytes,
        )
        self.executor = Executor(
            self.attempts,
            retry=retry or RetryPolicy(),
            limit=limit or ConcurrencyLimit(),
            max_rate_per_s=max_rate_per_s,
            hooks=all_hooks,
            clock=clock,
        )

    @property
    def tenant(self) -> Tenant:
        """Whose rows of an outbox are this client's.

        Raises:
            ConfigurationError: No account is named, and the authentication has no ``account``.
        """
        return tenant_of(self.base_url, self._auth, self._account)
