"""A batch's memory may be used again once the next batch was brought; on a GPU that has to be waited for."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from steps.training.inputs import STEPS_AHEAD, Courier


def test_on_a_cpu_a_batch_is_where_it_is() -> None:
    batch = [torch.ones(2), torch.zeros(3)]
    assert all(a is b for a, b in zip(Courier(torch.device("cpu")).bring(batch), batch, strict=True))


class Stream:
    """Tells what is done, in its order."""

    def __init__(self, name: str, done: list[str]) -> None:
        self.name, self._done, self._count = name, done, 0

    def record_event(self) -> "Event":
        self._count += 1
        return Event(f"{self.name} {self._count}", self._done)

    def wait_event(self, event: "Event") -> None:
        self._done.append(f"{self.name} after {event.name}")


class Event:
    def __init__(self, name: str, done: list[str]) -> None:
        self.name, self._done = name, done

    def synchronize(self) -> None:
        self._done.append(f"waited for {self.name}")


def test_copies_are_over_before_the_next_batch_and_steps_are_not_waited_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    compute, copies = Stream("step", done), Stream("copy", done)

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        done.append(f"on {stream.name}")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: copies)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: compute)
    courier = Courier(torch.device("cuda"))
    for _ in range(STEPS_AHEAD + 2):
        courier.bring([])
    assert done == [
        *("on copy", "step after copy 1"),
        *("waited for copy 1", "on copy", "step after copy 2"),
        *("waited for copy 2", "waited for step 1", "on copy", "step after copy 3"),
        *("waited for copy 3", "waited for step 2", "on copy", "step after copy 4"),
    ]
