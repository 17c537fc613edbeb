"""A load of twice what the endpoint can draw: every request ends with a picture or a 429, and it goes on as before.

LOAD_S is how long; ten minutes unless it says otherwise.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.steps.serving.served import Server
from tests.steps.serving.tiny_pipeline import write_pipeline

LOAD_S = float(os.environ.get("LOAD_S", "600"))
CALIBRATION_S = 20.0
CLIENTS = 16
# Enough work that drawing is what takes the time, on one thread.
REQUEST = {"prompt": "a", "steps": 60, "width": 64, "height": 64}


@dataclass
class Seen:
    """Answers of a load."""

    statuses: Counter[int | str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)

    async def ask(self, client: httpx.AsyncClient, seed: int) -> int:
        """Send one request, note what came of it, and return its status; 0 where none came."""
        started_s = time.monotonic()
        try:
            answer = await client.post("/invocations", json={**REQUEST, "seed": seed})
        except httpx.TransportError as error:
            self.statuses[type(error).__name__] += 1
            return 0
        whole = answer.content[-8:-4] == b"IEND" if answer.status_code == 200 else "retry-after" in answer.headers
        self.statuses[answer.status_code if whole else f"{answer.status_code}, not whole"] += 1
        self.latencies_s.append(time.monotonic() - started_s)
        return answer.status_code


@pytest.fixture(name="server")
def server_fixture(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "output").mkdir()
    write_pipeline(tmp_path / "model")
    # A busy machine may keep a client from sending its body for longer than the tests of slow clients allow.
    server = Server(tmp_path, SERVE_BODY_TIMEOUT_S="10")
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.end()


async def capacity_per_s(client: httpx.AsyncClient) -> float:
    """Return how many pictures a second the endpoint draws for clients that wait for each."""
    seen, started_s = Seen(), time.monotonic()

    async def work(seed: int) -> None:
        while time.monotonic() < started_s + CALIBRATION_S:
            if await seen.ask(client, seed) == 429:
                # On a busy machine even these may be too many.
                await asyncio.sleep(1.0)

    await asyncio.gather(*(work(seed) for seed in range(CLIENTS)))
    assert set(seen.statuses) <= {200, 429}
    return seen.statuses[200] / (time.monotonic() - started_s)


async def load(client: httpx.AsyncClient, requests_per_s: float, seconds: float) -> Seen:
    """Send requests at a pace, whatever becomes of those before."""
    seen, started_s, tasks = Seen(), time.monotonic(), set[asyncio.Task[int]]()
    count = int(requests_per_s * seconds)
    for number in range(count):
        await asyncio.sleep(max(0.0, started_s + number / requests_per_s - time.monotonic()))
        task = asyncio.create_task(seen.ask(client, number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    assert seen.statuses.total() == count
    return seen


async def overload(url: str) -> tuple[float, Seen]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=90, limits=limits) as client:
        per_s = await capacity_per_s(client)
        return per_s, await load(client, 2 * per_s, LOAD_S)


@pytest.mark.chaos
@pytest.mark.timeout(LOAD_S + 600)
def test_twice_the_capacity_ends_with_a_picture_or_a_429_for_everyone(server: Server) -> None:
    capacity, seen = asyncio.run(overload(server.url))
    latencies_s = sorted(seen.latencies_s)
    pictures_per_s = seen.statuses[200] / LOAD_S
    p99_s = latencies_s[int(0.99 * len(latencies_s))]
    print(f"capacity {capacity:.1f}/s, {LOAD_S:g} s at twice that: {dict(seen.statuses)}; "
          f"{pictures_per_s:.1f} pictures/s, p99 {p99_s:.2f} s")  # fmt: skip
    assert set(seen.statuses) == {200, 429}
    # It is busy with pictures, not with refusing: the machine may be slower than it was at first.
    assert pictures_per_s > 0.5 * capacity
    assert server.process.poll() is None
    assert server.ping() == 200
    assert server.metric("serving_in_flight_requests") == 0
    assert server.metric("serving_queue_requests") == 0
