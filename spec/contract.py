"""Table of what the facade relies on in the specification; ``codegen.sh --findings`` compares a specification with it.

Change the facade first and then this table: it describes the facade, not the specification.
"""

from __future__ import annotations

from spec.contract_rows import ANY, Reliance, Use, snake_case

TEXT = "string"
KNOWN_OPERATIONS = ("listDevices", "provisionDevice", "updateDeviceStatus")
# Operations that the facade and the sandbox leave out on purpose.
LEFT_OUT: tuple[str, ...] = ()
# Where a new operation is added, besides the sandbox, which has a finding of its own.
NEW_OPERATION = (
    Use("_client.py", "PrintOSClient"),
    Use("_api/generated_client.py", "GeneratedClient"),
    Use("_api/requests.py", "ROUTES"),
    Use("_api/requests.py", "Operations"),
    Use("_api/responses.py", "Answers"),
)
# The modules of the sandbox name the operations that they serve.
SANDBOX = (Use("sandbox/_operations.py", "Operations"), Use("sandbox/_faults.py", "Operation"))
_PAGING = r"(?i:pag(?:e|ing|ination)|cursor|next|offset|limit|token|start|skip|more|continu|link|meta)"
_ROUTES = (Use("_api/requests.py", "ROUTES"), Use("sandbox/_operations.py", "Operations"))
_REPEATS = (
    Use("_api/requests.py", "replayable"),
    Use("_api/requests.py", "stored_status"),
    Use("_execution/attempt.py", "may_repeat"),
)

RELIANCES: tuple[Reliance, ...] = (
    # Requests
    *(
        Reliance(
            name,
            "path",
            f"^{name} path$",
            wanted={f"{name} path": path},
            relies="events name the route, and the sandbox serves it",
            to_do="change the route; where the path has another parameter, the call has to pass it",
            uses=_ROUTES,
        )
        for name, path in {
            "listDevices": "/devices",
            "provisionDevice": "/devices",
            "updateDeviceStatus": "/devices/{deviceId}/status",
        }.items()
    ),
    *(
        Reliance(
            name,
            "idempotence",
            f"^{name} method$|^{name} parameter (?i:.*idempoten.*|if-.*|.*request-id.*|.*version.*) ",
            wanted={f"{name} method": method},
            relies=relies,
            to_do="say anew which requests may be repeated; pass a key or a version in each attempt",
            uses=_REPEATS,
        )
        for name, method, relies in (
            ("listDevices", "GET", "a GET changes nothing and is repeated"),
            (
                "provisionDevice",
                "POST",
                "a POST makes a device and is not repeated where it may have arrived",
            ),
            ("updateDeviceStatus", "PUT", "a PUT replaces the whole status and is repeated"),
        )
    ),
    Reliance(
        "listDevices",
        "pagination",
        rf"^listDevices parameter .*{_PAGING}|^PrintDeviceList\.(?!devices\b)\S*{_PAGING}\S*( required)?$"
        r"|^listDevices answer 2\w\w header (?i:link|.*page.*)$",
        relies="all pages are read if an optional parameter takes a page token, and a text beside devices in the "
        "answer, known by its name, has the next one; with a token inside another object (page.next, links.next), a "
        "link, an offset or a page number only the first page is read, and provisioning sends a POST again for a "
        "device of a later one",
        to_do="check that pages_of finds both names, or add them; where the token is nested, or pages are not asked for "
        "by a token, write how; a required parameter has to be passed, or every list is refused",
        uses=(Use("_api/pages.py", "pages_of"), Use("_execution/listing.py", "list_all")),
    ),
    *(
        Reliance(
            name,
            "parameters",
            rf"^{name} parameter (?!.*(?i:{_PAGING}|idempoten|version|request-id)|if-)[^ ]+ \((query|header|cookie)\)",
            relies="nothing but the device's id and the body is sent",
            to_do="a required parameter has to be passed; decide whether an optional one becomes an argument",
            uses=(Use("_api/requests.py", snake_case(name)), Use("_client.py", snake_case(name))),
        )
        for name in KNOWN_OPERATIONS
    ),
    *(
        Reliance(
            name,
            "body",
            f"^{name} body( required)?$",
            wanted={f"{name} body": f"application/json {model}", f"{name} body required": "yes"},
            relies="the body is JSON of this model, and always sent",
            to_do="check and encode what the specification names",
            uses=(Use("_api/requests.py", "_build_call"), Use("_api/validation.py", check)),
        )
        for name, model, check in (
            ("provisionDevice", "DeviceProvisionRequest", "check_provision_request"),
            ("updateDeviceStatus", "DeviceStatusUpdate", "check_status"),
        )
    ),
    # Answers
    *(
        Reliance(
            name,
            "success codes",
            rf"^{name} answer 2\w\w$",
            wanted={f"{name} answer {code}": content},
            relies=relies,
            to_do=to_do,
            uses=uses,
        )
        for name, code, content, relies, to_do, uses in (
            (
                "listDevices",
                "200",
                "application/json PrintDeviceList",
                "any 2xx has the whole list in its body",
                "read the new answer; a 206 is a part of the list",
                (Use("_api/responses.py", "_parse_devices"),),
            ),
            (
                "provisionDevice",
                "201",
                "application/json PrintDevice",
                "any 2xx has the device in its body, and the device is there",
                "a 202 promises a device: say how to learn of it, and when a POST may be repeated",
                (Use("_api/responses.py", "provisioned"), Use("_execution/provisioning.py", "_send")),
            ),
            (
                "updateDeviceStatus",
                "200",
                "no content",
                "any 2xx means that the status is applied; the body is not read",
                "a 202 may be applied later, or be refused: say so in the outcome; treat it as an uncertain write",
                (Use("_api/responses.py", "acknowledgement"), Use("_delivery/senders.py", "acknowledgement")),
            ),
        )
    ),
    *(
        Reliance(
            name,
            "refusals",
            rf"^{name} answer ([345]\w\w|default)$",
            relies="no refusal is documented: the error's class follows from the status code, its message from HP's "
            "smsError envelope, and the pause from Retry-After",
            to_do="read the documented body; check the class of the error and what is retried",
            uses=(Use("_api/errors.py", "status_error"), Use("_api/errors.py", "_envelope_message")),
        )
        for name in KNOWN_OPERATIONS
    ),
    *(
        Reliance(
            name,
            "other properties",
            rf"^{name} (?!method$|path$|title$|summary$|description$|parameter |body|answer |security$)",
            relies="nothing else is said of the operation, such as that it is deprecated or on another server",
            to_do="read it; warn callers of an operation that is deprecated",
            uses=(Use("_client.py", snake_case(name)),),
        )
        for name in KNOWN_OPERATIONS
    ),
    # Identity
    Reliance(
        "PrintDevice",
        "identity of devices",
        r"^PrintDevice\.id( description)?$|^updateDeviceStatus parameter .* \(path\)( description)?$",
        wanted={"PrintDevice.id": TEXT, "updateDeviceStatus parameter deviceId (path)": TEXT},
        relies="one text, the id, names a device and no other of the account; statuses wait, are ordered and are "
        "stored by it",
        to_do="decide what names a device now; an outbox keeps the text that it was given",
        uses=(
            Use("_models.py", "DeviceId"),
            Use("_api/validation.py", "check_device_id"),
            Use("_api/requests.py", "device_path"),
            Use("_api/responses.py", "provisioned"),
            Use("outbox/sql/tables.py", "device_id"),
        ),
    ),
    Reliance(
        "PrintDevice",
        "identity of what is provisioned",
        r"^(PrintDevice|DeviceProvisionRequest)\.(model|serialNumber)$",
        wanted={
            f"{schema}.{name}": TEXT
            for schema in ("PrintDevice", "DeviceProvisionRequest")
            for name in ("model", "serialNumber")
        },
        relies="model and serial number find the device that a POST has made",
        to_do="compare the properties that identify a device now",
        uses=(Use("_execution/provisioning.py", "identity_of"),),
    ),
    # Schemas
    Reliance(
        "PrintDeviceList",
        "the list",
        r"^PrintDeviceList\.devices$",
        wanted={"PrintDeviceList.devices": "array of PrintDevice"},
        relies="the devices are in this array, which is read piece by piece",
        to_do="read the devices from where they are now",
        uses=(Use("_api/responses.py", "_OPENING"), Use("_api/responses.py", "_parse_devices")),
    ),
    Reliance(
        "PrintDevice",
        "the columns of devices",
        r"^PrintDevice\.(id|model|serialNumber|status|registeredAt)$",
        wanted=dict.fromkeys(
            (f"PrintDevice.{name}" for name in ("id", "model", "serialNumber", "status", "registeredAt")), ANY
        ),
        relies="`printos devices list` shows these properties",
        to_do="show the properties that are there",
        uses=(Use("cli/commands/devices.py", "registeredAt"),),
    ),
    Reliance(
        "DeviceProvisionRequest",
        "the arguments of provision_device",
        r"^DeviceProvisionRequest\.((model|serialNumber|location)$|\w+ required$)",
        wanted={f"DeviceProvisionRequest.{name}": TEXT for name in ("model", "serialNumber", "location")},
        relies="provision_device and the command make a request of model, serial number and location alone",
        to_do="a required field is passed to provision_device by its own name: give it an argument, and the command an "
        "option",
        uses=(Use("_client.py", "provision_device"), Use("cli/commands/devices.py", "serial_number")),
    ),
    Reliance(
        "DeviceStatusUpdate",
        "the fields of a status",
        r"^DeviceStatusUpdate\.(status|metrics|metrics\.(pagesTotal|inkLevel))$",
        wanted={
            "DeviceStatusUpdate.status": TEXT,
            "DeviceStatusUpdate.metrics": "object",
            "DeviceStatusUpdate.metrics.pagesTotal": "integer",
            "DeviceStatusUpdate.metrics.inkLevel": "number",
        },
        relies="the demonstration sends and reads these fields, and its model of the metrics is exported; everything "
        "else follows the model",
        to_do="export and send what the model has now",
        uses=(Use("_models.py", "DeviceStatusUpdateMetrics"), Use("cli/demo/run.py", "pages_total")),
    ),
    # The whole API
    Reliance(
        "API",
        "security",
        r"^security$|^security scheme | security$",
        relies="the specification says nothing of security; HMAC and session tokens are HP's documents' word",
        to_do="compare the schemes with the headers that are sent; the sandbox checks the same",
        uses=(
            Use("_auth/hmac.py", "HmacAuth"),
            Use("_auth/session_token.py", "SessionTokenAuth"),
            Use("sandbox/_auth.py", "Gatekeeper"),
        ),
    ),
    Reliance(
        "API",
        "servers",
        r"^server .*(?<! description)$| servers$",
        wanted={"server https://printos.api.hp.com": ANY},
        relies="this host is the command line's default, and the login is on it",
        to_do="change the default; check the path in front of the operations and of the login",
        uses=(Use("_config.py", "PRODUCTION_URL"), Use("_auth/session_token.py", "DEFAULT_LOGIN_URL")),
    ),
)
