"""Ten thousand requests against a server process: no 5xx, no crash, and neither memory, threads nor files grow.

FUZZ_REQUESTS is how many.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.steps.serving.served import Server
from tests.steps.serving.test_fuzz import ACCEPTS, FIELDS, VALID, check
from tests.steps.serving.tiny_pipeline import write_pipeline

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "10000"))
# By then every cache is full: 256 prompts, every sampler, the allocator's arenas.
WARM_REQUESTS = REQUESTS // 4
# Measured growth over the other requests is some MB of the allocator's; a leaked 1 KB picture each would be 8 MB more.
MAX_GROWTH_MB = 24.0


def written(fields: dict[str, Any]) -> bytes:
    """Return JSON as Python writes it: NaN and Infinity are sent too, which no JSON is."""
    return json.dumps(fields).encode()


BODIES = st.one_of(VALID.map(written), FIELDS.map(written), FIELDS.map(written), st.binary(max_size=2000))


@pytest.fixture(name="server")
def server_fixture(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "output").mkdir()
    write_pipeline(tmp_path / "model")
    limits = {"SERVE_MAX_SIZE_PX": "48", "SERVE_MAX_INFERENCE_STEPS": "4", "SERVE_MAX_IMAGES": "3"}
    server = Server(tmp_path, **limits, SERVE_MAX_PROMPT_CHARACTERS="100")
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.end()


def footprint(process: psutil.Process) -> tuple[float, int, int]:
    """Return resident MB, threads and open files."""
    with process.oneshot():
        return process.memory_info().rss / 2**20, process.num_threads(), process.num_fds()


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_thousands_of_requests_bring_no_5xx_no_crash_and_no_leak(server: Server) -> None:
    process, statuses, marks = psutil.Process(server.process.pid), Counter[int](), list[Any]()
    with httpx.Client(base_url=server.url, timeout=60) as client:

        @settings(
            max_examples=REQUESTS,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(body=BODIES, accept=ACCEPTS)
        def send(body: bytes, accept: str) -> None:
            headers = {"Content-Type": "application/json", "Accept": accept}
            answer = client.post("/invocations", headers=headers, content=body)
            check(answer)
            statuses[answer.status_code] += 1
            if statuses.total() == WARM_REQUESTS:
                marks.append(footprint(process))

        send()
    memory_mb, threads, files = footprint(process)
    print(f"{statuses.total()} requests: {dict(statuses)}; {marks[0]} -> {(memory_mb, threads, files)}")
    assert statuses.total() >= 0.9 * REQUESTS
    assert statuses[200] > 0.1 * REQUESTS
    assert server.process.poll() is None
    assert memory_mb - marks[0][0] < MAX_GROWTH_MB
    assert threads <= marks[0][1] + 2
    assert files <= marks[0][2] + 2
    assert server.metric("serving_in_flight_requests") == 0
    assert server.metric("serving_model_failures_total") == 0
