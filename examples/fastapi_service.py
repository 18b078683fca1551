"""FastAPI service that passes requests on to PrintOS and answers with the outcome.

    pip install fastapi uvicorn
    PRINTOS_KEY=... PRINTOS_SECRET=... python examples/fastapi_service.py --port 8000

All requests that the service gets share one client: its connections, session token, concurrency limit and retry
budget. docs/service.md has a service that accepts statuses at once and sends them from an outbox.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from printos_async import (
    APIError,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    InvalidDeviceIdError,
    InvalidStatusError,
    NotFoundError,
    PrintOSClient,
    StatusPush,
)

# An alias, because the specification may come to list the words; a plain str is then not one of them.
Word = Literal["DS_ON", "DS_OFF", "DS_PRINTING", "DS_STANDBY", "DS_ERROR", "DS_RIPPING"]


class Reading(BaseModel):
    """State of a press, as the press reports it."""

    device_id: str
    status: Word
    pages_total: int
    ink_level: float

    def as_push(self) -> StatusPush:
        """Return the reading as a status of the Device API."""
        metrics = DeviceStatusUpdateMetrics(pages_total=self.pages_total, ink_level=self.ink_level)
        return StatusPush(self.device_id, DeviceStatusUpdate(status=self.status, metrics=metrics))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client in the serving event loop, and close it with the service."""
    async with PrintOSClient.from_env() as printos:
        app.state.printos = printos
        yield


def client_of(request: Request) -> PrintOSClient:
    """Return the service's client."""
    printos = request.app.state.printos
    assert isinstance(printos, PrintOSClient)  # noqa: S101  # the lifespan has put it there
    return printos


Client = Annotated[PrintOSClient, Depends(client_of)]
app = FastAPI(lifespan=lifespan)


@app.get("/presses")
async def presses(printos: Client) -> list[dict[str, object]]:
    """Return the presses that are registered with PrintOS."""
    return [device.to_dict() for device in await printos.list_devices()]


@app.put("/status", status_code=204)
async def status(reading: Reading, printos: Client) -> None:
    """Send the status of one press; if that fails, this request fails."""
    push = reading.as_push()
    await printos.update_device_status(push.device_id, push.status)


@app.put("/statuses")
async def statuses(readings: list[Reading], printos: Client) -> dict[str, object]:
    """Send the statuses of a fleet, and return the counts and the failures."""
    report = await printos.push_statuses(reading.as_push() for reading in readings)
    failures = {result.device_id: str(result.error) for result in report.failures}
    return {"sent": report.sent, "superseded": report.superseded, "failures": failures}


@app.exception_handler(APIError)
async def upstream_failed(_: Request, error: APIError) -> JSONResponse:
    """Answer 404 for an unknown press, and 502 for any other failure of PrintOS."""
    code = 404 if isinstance(error, NotFoundError) else 502
    return JSONResponse({"detail": str(error)}, status_code=code)


@app.exception_handler(InvalidDeviceIdError)
@app.exception_handler(InvalidStatusError)
async def not_sendable(_: Request, error: InvalidDeviceIdError | InvalidStatusError) -> JSONResponse:
    """Answer 422 for a reading that cannot be sent."""
    return JSONResponse({"detail": str(error)}, status_code=422)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve the fleet over HTTP.")
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port)
