"""Follows what CloudFormation does to a stack, line by line, until it ends.

Reads the stack's events every `interval_s`; writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pipeline_definition.errors import OperatorError

SUCCEEDED = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE")
# The reason that CloudFormation gives for every resource that it cancelled because another one failed.
CANCELLED = "cancelled"


class StackEvents:
    """The events of one stack from now on."""

    def __init__(self, client: Any, stack_id: str, say: Callable[[str], None], interval_s: float) -> None:
        self._client, self._stack_id, self._say, self._interval_s = client, stack_id, say, interval_s
        self._seen = {event["EventId"] for event in self._events()}

    def follow(self) -> None:
        """Say each event until the stack rests; refuse an operation that failed by its first failure and the reason."""
        failures: list[str] = []
        while True:
            # The status first: an event that comes after it is read in the last round at the latest.
            status = str(self._client.describe_stacks(StackName=self._stack_id)["Stacks"][0]["StackStatus"])
            for event in self._events():
                if event["EventId"] in self._seen:
                    continue
                self._seen.add(event["EventId"])
                name, state, reason = (
                    str(event.get(key) or "") for key in ("LogicalResourceId", "ResourceStatus", "ResourceStatusReason")
                )
                self._say(f"{event['Timestamp']:%H:%M:%S}  {state:<20}  {name}  {reason}".rstrip())
                if state.endswith("_FAILED") and CANCELLED not in reason:
                    failures.append(f"{name} ({event['ResourceType']}): {reason}")
            if not status.endswith("_IN_PROGRESS"):
                break
            time.sleep(self._interval_s)
        if status not in SUCCEEDED:
            why = failures[0] if failures else "CloudFormation gives no reason"
            raise OperatorError(f"stack {self._stack_id.split('/')[1]} ended as {status}: {why}")

    def _events(self) -> list[dict[str, Any]]:
        """Return the stack's events, oldest first."""
        pages = self._client.get_paginator("describe_stack_events").paginate(StackName=self._stack_id)
        return [event for page in pages for event in page["StackEvents"]][::-1]
