"""The specification's operations, as the generated package describes them."""

from __future__ import annotations

import inspect
import pkgutil
import re
from functools import cache
from importlib import import_module

from attrs import frozen
from printos_device_api import api

from .fields import StandIn

_PLACEHOLDER = re.compile(r"\{([^}]*)\}")


@frozen
class GeneratedOperation:
    """One operation.

    Attributes:
        operation_id: The specification's ``operationId``, as far as the generated module's name tells.
        method: In capitals.
        route: The path, such as ``/devices/{deviceId}/status``.
    """

    operation_id: str
    method: str
    route: str

    @property
    def path_pattern(self) -> re.Pattern[str]:
        """Matches the paths of the route, percent-encoded."""
        fixed = _PLACEHOLDER.split(self.route)[::2]  # what stands between the placeholders
        return re.compile("[^/]+".join(map(re.escape, fixed)))


@cache
def generated_operations() -> tuple[GeneratedOperation, ...]:
    """Return the operations that the generated package has a module for."""
    found = []
    for module in pkgutil.walk_packages(api.__path__, f"{api.__name__}."):
        if module.ispkg:
            continue
        get_kwargs = import_module(module.name)._get_kwargs  # noqa: SLF001
        required = [
            name
            for name, parameter in inspect.signature(get_kwargs).parameters.items()
            if parameter.default is parameter.empty
        ]
        # A stand-in with the parameter's name in place of each value shows where in the path it goes.
        request = get_kwargs(**{name: StandIn(f"--{_camel_case(name)}--") for name in required})
        route = re.sub("--(.*?)--", r"{\1}", request["url"])
        found.append(
            GeneratedOperation(_camel_case(module.name.rpartition(".")[2]), request["method"].upper(), route)
        )
    return tuple(found)


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
