import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline_definition.local.definition import DefinedStep, parse_definition
from pipeline_definition.local.errors import StepFailureError, StepStoppedError
from pipeline_definition.local.execution import ExecutionIdentity, LocalExecution
from pipeline_definition.local.scheduler import Scheduler
from pipeline_definition.local.stop_signal import StopSignal
from tests.pipeline_definition.local.conftest import processing

Do = Callable[[DefinedStep, StopSignal], None]


def gate(outcome: bool, *, yes: list[Any], no: list[Any]) -> dict[str, Any]:
    condition = {"Type": "Equals", "LeftValue": outcome, "RightValue": True}
    return {
        "Name": "Gate",
        "Type": "Condition",
        "Arguments": {"Conditions": [condition], "IfSteps": yes, "ElseSteps": no},
    }


def execution(folder: Path, *steps: Any, parallelism: int | None = None) -> LocalExecution:
    definition = parse_definition(json.dumps({"Steps": list(steps)}))
    identity = ExecutionIdentity("arn/execution/id", "p", "arn", "state", time.time(), [], parallelism)
    return LocalExecution.begin(folder / "run", identity, definition, {})


def run(made: LocalExecution, do: Do) -> dict[str, str]:
    scheduler = Scheduler(made, do)
    scheduler.start()
    scheduler.join()
    return {name: state.status for name, state in made.steps.items()}


def succeed(made: LocalExecution) -> Do:
    def do(step: DefinedStep, stop: StopSignal) -> None:
        if step.type == "Condition":
            outcome = step.arguments["Conditions"][0]["LeftValue"]
            made.set_step(step.name, properties={"Outcome": str(outcome)})
        else:
            made.set_step(step.name, properties={})

    return do


def failing(*names: str) -> Do:
    def do(step: DefinedStep, stop: StopSignal) -> None:
        if step.name in names:
            raise StepFailureError("because")

    return do


def test_branches_that_do_not_depend_on_each_other_run_at_once(tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=5)
    made = execution(tmp_path, processing("A"), processing("B"))

    def do(step: DefinedStep, stop: StopSignal) -> None:
        meeting.wait()

    assert run(made, do) == {"A": "Succeeded", "B": "Succeeded"}


def test_no_more_steps_run_at_once_than_is_allowed(tmp_path: Path) -> None:
    running, most = [0], [0]

    def do(step: DefinedStep, stop: StopSignal) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02)
        running[0] -= 1

    run(execution(tmp_path, *[processing(name) for name in "ABCDE"], parallelism=2), do)
    assert most == [2]


def test_a_step_begins_within_a_fifth_of_a_second_after_the_last_one(tmp_path: Path) -> None:
    made = execution(tmp_path, processing("A"), processing("B", DependsOn=["A"]), processing("C", DependsOn=["B"]))
    began_s = time.monotonic()
    run(made, lambda step, stop: time.sleep(0.05))
    assert time.monotonic() - began_s < 0.15 + 3 * 0.2


def test_the_other_side_of_a_condition_is_not_begun(tmp_path: Path) -> None:
    made = execution(tmp_path, gate(False, yes=[processing("Yes")], no=[processing("No")]))
    assert run(made, succeed(made)) == {"Gate": "Succeeded", "No": "Succeeded"}
    assert made.status == "Succeeded"


def test_what_waits_for_a_skipped_step_is_skipped(tmp_path: Path) -> None:
    made = execution(tmp_path, gate(False, yes=[processing("Yes")], no=[]), processing("After", DependsOn=["Yes"]))
    assert run(made, succeed(made)) == {"Gate": "Succeeded"}


def test_a_failure_ends_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    made = execution(tmp_path, processing("A"), processing("B", DependsOn=["A"]), processing("C"))
    assert run(made, failing("A")) == {"A": "Failed", "C": "Succeeded"}
    assert made.status == "Failed"
    assert made.failure_reason == "Step failure: A: because"


def test_a_step_may_wait_for_a_failure(tmp_path: Path) -> None:
    notify = processing("Notify", DependsOn=[{"Step": "A", "Trigger": "Failed"}])
    made = execution(tmp_path, processing("A"), notify)
    assert run(made, failing("A")) == {"A": "Failed", "Notify": "Succeeded"}
    assert made.status == "CompletedWithFailures"


def test_a_stop_ends_the_running_steps_and_begins_no_others(tmp_path: Path) -> None:
    began = threading.Event()

    def do(step: DefinedStep, stop: StopSignal) -> None:
        began.set()
        stop.sleep(30)

    made = execution(tmp_path, processing("A"), processing("B", DependsOn=["A"]))
    scheduler = Scheduler(made, do)
    scheduler.start()
    assert began.wait(5)
    scheduler.stop()
    scheduler.join()
    assert {name: state.status for name, state in made.steps.items()} == {"A": "Stopped"}
    assert made.status == "Stopped"


def test_an_error_of_the_engine_fails_the_step_and_says_so(tmp_path: Path) -> None:
    def do(step: DefinedStep, stop: StopSignal) -> None:
        raise OSError("disk full")

    made = execution(tmp_path, processing("A"))
    assert run(made, do) == {"A": "Failed"}
    assert "disk full" in str(made.steps["A"].failure_reason)


def test_an_execution_is_read_back_as_it_was(tmp_path: Path) -> None:
    made = execution(tmp_path, processing("A"), processing("B", DependsOn=["A"]))
    run(made, failing("B"))
    back = LocalExecution.load(tmp_path / "run")
    assert (back.status, back.failure_reason, back.steps) == (made.status, made.failure_reason, made.steps)


def test_a_retry_keeps_what_has_succeeded_and_counts_attempts_on(tmp_path: Path) -> None:
    made = execution(tmp_path, processing("A"), processing("B", DependsOn=["A"]))
    run(made, failing("B"))
    made.set_step("B", attempts=2)
    made.forget_unfinished_steps()
    ran: list[str] = []
    assert run(made, lambda step, stop: ran.append(step.name)) == {"A": "Succeeded", "B": "Succeeded"}
    assert ran == ["B"]
    assert made.status == "Succeeded"
    assert LocalExecution.load(tmp_path / "run").attempts["B"] == 2


def test_an_interrupted_execution_is_stopped_and_says_why(tmp_path: Path) -> None:
    made = execution(tmp_path, processing("A"), processing("B"))
    made.set_step("A", status="Succeeded", properties={})
    made.set_step("B", status="Executing")
    back = LocalExecution.load(tmp_path / "run")
    back.interrupt()
    assert back.status == "Stopped" and "RetryPipelineExecution" in str(back.failure_reason)
    assert (back.steps["A"].status, back.steps["B"].status) == ("Succeeded", "Stopped")


def test_a_stopped_step_raises_where_it_waits() -> None:
    stop = StopSignal()
    called: list[int] = []
    with stop.calling(lambda: called.append(1)):
        stop.set()
    assert called == [1]
    with stop.calling(lambda: called.append(2)):
        assert called == [1, 2]
    try:
        stop.sleep(10)
    except StepStoppedError:
        return
    raise AssertionError("it slept")


def test_a_fail_step_stops_what_runs_beside_it_and_nothing_begins_after_it(tmp_path: Path) -> None:
    fail = {"Name": "F", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}
    made = execution(tmp_path, processing("Slow"), processing("After", DependsOn=["Slow"]), fail)
    running = threading.Event()

    def do(step: DefinedStep, stop: StopSignal) -> None:
        if step.type == "Fail":
            assert running.wait(5)
            raise StepFailureError("the gate said no")
        running.set()
        stop.sleep(30)

    assert run(made, do) == {"Slow": "Stopped", "F": "Failed"}
    assert (made.status, made.failure_reason) == ("Failed", "Step failure: F: the gate said no")


def test_an_execution_whose_disk_is_full_has_failed_and_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    made = execution(tmp_path, processing("A"))

    def full(entry: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(made._journal, "append", full)
    monkeypatch.setattr(threading, "excepthook", lambda error: None)
    run(made, succeed(made))
    assert made.status == "Failed" and "No space left" in str(made.failure_reason)
