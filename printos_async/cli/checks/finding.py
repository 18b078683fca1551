"""Findings: what one step of a check has found, and how to fix it."""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen
class Finding:
    """Result of one step.

    Attributes:
        check: Name of the step.
        outcome: ``skipped`` if the step does not apply, or an earlier failure leaves nothing to look at.
        detail: What was found, or why the step was skipped; without secrets.
        remedy: What to do; None unless the step failed.
    """

    check: str
    outcome: Literal["ok", "failed", "skipped"]
    detail: str
    remedy: str | None = None


def ok(check: str, detail: str) -> Finding:
    """Return the finding of a step without a problem."""
    return Finding(check, "ok", detail)


def failed(check: str, detail: object, remedy: str) -> Finding:
    """Return the finding of a step with a problem."""
    return Finding(check, "failed", str(detail), remedy)


def skipped(check: str, reason: str) -> Finding:
    """Return the finding of a step that has not looked at anything."""
    return Finding(check, "skipped", reason)
