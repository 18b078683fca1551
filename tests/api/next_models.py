"""Models as the generator makes them from a next specification, with fields of every JSON type."""

from __future__ import annotations

from datetime import date, datetime  # noqa: TC003  # the annotations are evaluated
from typing import Any, ClassVar, Literal, Self
from uuid import UUID

from attrs import define, field
from printos_device_api.types import UNSET, Unset

Word = Literal["DS_OFF", "DS_ON"]
Rank = Literal[1, 2]


def _json(value: Any) -> Any:
    if isinstance(value, list):
        return [_json(item) for item in value]
    for method in ("isoformat", "to_dict"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value) if isinstance(value, UUID) else value


@define
class NextLabels:
    additional_properties: dict[str, str] = field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return dict(self.additional_properties)


@define
class NextAlert:
    """A closed object: it has no additional properties."""

    code: int
    raised_at: datetime | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        properties = {"code": self.code}
        if self.raised_at is not UNSET:
            properties["raisedAt"] = _json(self.raised_at)
        return properties


@define
class NextSite:
    name: str | Unset = UNSET
    status: str | Unset = UNSET
    opened_on: date | Unset = UNSET
    additional_properties: dict[str, Any] = field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        names = {"name": self.name, "status": self.status, "opened_on": self.opened_on}
        return {
            **self.additional_properties,
            **{name: _json(value) for name, value in names.items() if value is not UNSET},
        }


@define
class NextStatus:
    status: Word
    timestamp: datetime | Unset = UNSET
    day: date | Unset = UNSET
    online: bool | Unset = UNSET
    ink_level: float | Unset = UNSET
    rank: Rank | Unset = UNSET
    note: str | Unset | None = UNSET
    checked_at: datetime | Unset | None = UNSET
    jdf_url: str | Unset = UNSET
    firmware_version: str | Unset = UNSET
    job_id: UUID | Unset = UNSET
    trays: list[str] | Unset = UNSET
    days: list[list[date]] | Unset = UNSET
    alerts: list[NextAlert] | Unset = UNSET
    site: NextSite | Unset = UNSET
    labels: NextLabels | Unset = UNSET
    either: int | str | Unset = UNSET
    anything: Any | Unset = UNSET
    additional_properties: dict[str, Any] = field(init=False, factory=dict)

    NAMES: ClassVar = {
        "status": "status",
        "timestamp": "timestamp",
        "day": "day",
        "online": "online",
        "ink_level": "inkLevel",
        "rank": "rank",
        "note": "note",
        "checked_at": "checkedAt",
        "jdf_url": "jdfURL",
        "firmware_version": "firmware_version",
        "job_id": "jobId",
        "trays": "trays",
        "days": "days",
        "alerts": "alerts",
        "site": "site",
        "labels": "labels",
        "either": "either",
        "anything": "anything",
    }

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, attribute) for attribute, name in self.NAMES.items()}
        sent = {name: _json(value) for name, value in values.items() if value is not UNSET}
        return {**self.additional_properties, **sent}


@define
class NextDevice:
    id: str
    kind: Word | Unset = UNSET
    last_seen: datetime | Unset = UNSET
    site: NextSite | Unset = UNSET
    additional_properties: dict[str, Any] = field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        names = {"id": self.id, "kind": self.kind, "lastSeen": self.last_seen, "site": self.site}
        return {name: _json(value) for name, value in names.items() if value is not UNSET}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        device = cls(raw["id"], raw.get("kind", UNSET), raw.get("lastSeen", UNSET), raw.get("site", UNSET))
        device.additional_properties = {
            name: value for name, value in raw.items() if name not in {"id", "kind", "lastSeen", "site"}
        }
        return device


@define
class NextDeviceList:
    devices: list[NextDevice] | Unset = UNSET
    next_page_token: str | Unset = UNSET
    total: int | Unset = UNSET
    additional_properties: dict[str, Any] = field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"devices": _json(self.devices), "nextPageToken": self.next_page_token, "total": self.total}
