import os
import sys
import time
from pathlib import Path

import pytest

from pipeline_definition.local.host_group import Host, HostGroup, Outcome
from pipeline_definition.local.processes import marked
from tests.pipeline_definition.local.conftest import until

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
BREED = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True); {SLEEP}"
)


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> str:
    return f"test-{os.getpid()}-{request.node.name}/"


def host(folder: Path, name: str, code: str) -> Host:
    (folder / name).mkdir()
    return Host(name, (sys.executable, "-c", code), dict(os.environ), folder / name, folder / f"{name}.log")


def group(folder: Path, mark: str, *codes: str, limit_s: float | None = None) -> HostGroup:
    hosts = [host(folder, f"algo-{number}", code) for number, code in enumerate(codes, 1)]
    return HostGroup(mark, hosts, grace_s=0.5, max_runtime_s=limit_s)


def end(started: HostGroup) -> Outcome:
    return started.wait(lambda: None, 0.1)


def log_has(folder: Path, text: str, name: str = "algo-1") -> None:
    until(lambda: (folder / f"{name}.log").exists() and text in (folder / f"{name}.log").read_text())


def test_hosts_that_end_well_end_the_job_well(tmp_path: Path, mark: str) -> None:
    outcome = end(group(tmp_path, mark, "print('one')", "print('two')"))
    assert (outcome.cause, outcome.codes) == ("finished", {"algo-1": 0, "algo-2": 0})
    assert (tmp_path / "algo-2.log").read_text() == "two\n"


def test_one_failing_host_ends_the_others(tmp_path: Path, mark: str) -> None:
    began_s = time.monotonic()
    outcome = end(group(tmp_path, mark, SLEEP, "import sys; sys.exit(3)"))
    assert (outcome.cause, outcome.first_failed, outcome.codes["algo-2"]) == ("failed", "algo-2", 3)
    assert time.monotonic() - began_s < 10
    assert not marked(mark)


def test_a_stop_ends_every_process_wherever_it_went(tmp_path: Path, mark: str) -> None:
    started = group(tmp_path, mark, BREED)
    until(lambda: len(marked(mark)) == 2)
    started.stop()
    assert end(started).cause == "stopped"
    assert not marked(mark)


def test_what_ignores_sigterm_is_killed_after_the_grace_time(tmp_path: Path, mark: str) -> None:
    started = group(tmp_path, mark, STUBBORN)
    log_has(tmp_path, "up")
    began_s = time.monotonic()
    started.stop()
    outcome = end(started)
    assert outcome.codes == {"algo-1": -9}
    assert 0.4 < time.monotonic() - began_s < 5


def test_a_job_ends_at_its_time_limit(tmp_path: Path, mark: str) -> None:
    assert end(group(tmp_path, mark, SLEEP, limit_s=0.3)).cause == "timeout"


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path, mark: str) -> None:
    started = group(tmp_path, mark, SLEEP)
    log_has(tmp_path, "up")
    started._process.kill()
    assert end(started).cause == "lost"
    assert not marked(mark)


def test_what_is_left_of_a_finished_job_is_ended(tmp_path: Path, mark: str) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True)"
    assert end(group(tmp_path, mark, code)).cause == "finished"
    assert not marked(mark)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path, mark: str) -> None:
    (tmp_path / "algo-1").mkdir()
    missing = Host("algo-1", ("/no/such/program",), {}, tmp_path / "algo-1", tmp_path / "algo-1.log")
    outcome = end(HostGroup(mark, [missing], grace_s=0.5))
    assert outcome.cause == "failed" and "/no/such/program" in outcome.error


def test_an_error_in_the_caller_ends_the_job(tmp_path: Path, mark: str) -> None:
    started = group(tmp_path, mark, SLEEP)

    def tick() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        started.wait(tick, 0.1)
    assert not marked(mark)
