import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pipeline_definition.local.host_group import Host, Outcome, run_hosts
from pipeline_definition.local.processes import marked
from pipeline_definition.local.settings import LocalSettings
from pipeline_definition.local.stop_signal import StopSignal
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


def settings(folder: Path) -> LocalSettings:
    return LocalSettings(folder / "state", folder / "runs", grace_s=0.5)


def run(folder: Path, mark: str, *codes: str, stop: StopSignal | None = None, limit_s: float | None = None) -> Outcome:
    hosts = [host(folder, f"algo-{number}", code) for number, code in enumerate(codes, 1)]
    return run_hosts(settings(folder), mark, hosts, stop or StopSignal(), lambda: None, limit_s)


def start(folder: Path, mark: str, code: str) -> tuple["Future[Outcome]", StopSignal]:
    """Run a host in a thread of its own, until its program is up."""
    stop, pool = StopSignal(), ThreadPoolExecutor(1)
    running = pool.submit(run, folder, mark, code, stop=stop)
    pool.shutdown(wait=False)
    log_has(folder, "up")
    return running, stop


def log_has(folder: Path, text: str, name: str = "algo-1") -> None:
    until(lambda: (folder / f"{name}.log").exists() and text in (folder / f"{name}.log").read_text())


def test_hosts_that_end_well_end_the_job_well(tmp_path: Path, mark: str) -> None:
    outcome = run(tmp_path, mark, "print('one')", "print('two')")
    assert (outcome.cause, outcome.codes) == ("finished", {"algo-1": 0, "algo-2": 0})
    assert (tmp_path / "algo-2.log").read_text() == "two\n"


def test_one_failing_host_ends_the_others(tmp_path: Path, mark: str) -> None:
    began_s = time.monotonic()
    outcome = run(tmp_path, mark, SLEEP, "import sys; sys.exit(3)")
    assert (outcome.cause, outcome.first_failed, outcome.codes["algo-2"]) == ("failed", "algo-2", 3)
    assert time.monotonic() - began_s < 10
    assert not marked(mark)


def test_a_stop_ends_every_process_wherever_it_went(tmp_path: Path, mark: str) -> None:
    running, stop = start(tmp_path, mark, BREED)
    until(lambda: len(marked(mark)) == 2)
    stop.set()
    assert running.result().cause == "stopped"
    assert not marked(mark)


def test_what_ignores_sigterm_is_killed_after_the_grace_time(tmp_path: Path, mark: str) -> None:
    running, stop = start(tmp_path, mark, STUBBORN)
    began_s = time.monotonic()
    stop.set()
    assert running.result().codes == {"algo-1": -9}
    assert 0.4 < time.monotonic() - began_s < 5


def test_a_job_ends_at_its_time_limit(tmp_path: Path, mark: str) -> None:
    assert run(tmp_path, mark, SLEEP, limit_s=0.3).cause == "timeout"


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path, mark: str) -> None:
    running, _ = start(tmp_path, mark, SLEEP)
    (supervisor,) = {process.parent() for process in marked(mark)}
    assert supervisor is not None and supervisor != psutil.Process()
    supervisor.kill()
    assert running.result().cause == "lost"
    assert not marked(mark)


def test_what_is_left_of_a_finished_job_is_ended(tmp_path: Path, mark: str) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True)"
    assert run(tmp_path, mark, code).cause == "finished"
    assert not marked(mark)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path, mark: str) -> None:
    (tmp_path / "algo-1").mkdir()
    missing = Host("algo-1", ("/no/such/program",), {}, tmp_path / "algo-1", tmp_path / "algo-1.log")
    outcome = run_hosts(settings(tmp_path), mark, [missing], StopSignal(), lambda: None)
    assert outcome.cause == "failed" and "/no/such/program" in outcome.error


def test_an_error_in_the_caller_ends_the_job(tmp_path: Path, mark: str) -> None:
    def tick() -> None:
        raise OSError("disk full")

    hosts = [host(tmp_path, "algo-1", SLEEP)]
    with pytest.raises(OSError, match="disk full"):
        run_hosts(settings(tmp_path), mark, hosts, StopSignal(), tick)
    assert not marked(mark)
