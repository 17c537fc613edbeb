"""The order of an execution's steps: each begins once the steps that it needs have ended; branches run in parallel.

One thread for each execution and one for each running step; nothing polls.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping

from params.layout import ENDED_STATUSES
from pipeline_definition.local.definition import DefinedStep
from pipeline_definition.local.errors import StepFailureError, StepStoppedError
from pipeline_definition.local.execution import LocalExecution, StepState
from pipeline_definition.local.stop_signal import StopSignal

# SageMaker's own limit where ParallelismConfiguration says nothing.
DEFAULT_PARALLEL_STEPS = 50
RunStep = Callable[[DefinedStep, StopSignal], None]


def readiness(step: DefinedStep, states: Mapping[str, StepState], skipped: set[str]) -> bool | None:
    """Whether a step can begin now: True; never: False; not yet: None."""
    if step.branch:
        condition = states.get(step.branch.condition)
        if step.branch.condition in skipped:
            return False
        if condition is None or condition.status not in ENDED_STATUSES:
            return None
        outcome = (condition.properties or {}).get("Outcome")
        if condition.status != "Succeeded" or outcome != str(step.branch.outcome):
            return False
    waiting = False
    for name, trigger in step.dependencies.items():
        state = states.get(name)
        if name in skipped:
            return False
        if state is None or state.status not in ENDED_STATUSES:
            waiting = True
        elif not _triggered(state.status, trigger):
            return False
    return None if waiting else True


def final_status(execution: LocalExecution) -> tuple[str, str | None]:
    """Return the status and failure reason of an execution whose steps have all ended."""
    failed = [state for state in execution.steps.values() if state.status == "Failed"]
    unhandled = [state for state in failed if not _is_handled(state.name, execution)]
    if unhandled:
        reasons = [f"Step failure: {state.name}: {state.failure_reason}" for state in unhandled]
        return "Failed", "; ".join(reasons)[:3000]
    return ("CompletedWithFailures" if failed else "Succeeded"), None


class Scheduler:
    """Runs one execution."""

    def __init__(self, execution: LocalExecution, run_step: RunStep) -> None:
        self._execution, self._run_step = execution, run_step
        self._stop = StopSignal()
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the running steps and begin no others."""
        if self._execution.status == "Executing":
            self._execution.set_status("Stopping")
        self._stop.set()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._run_steps()
        except Exception as error:  # such as a full disk: say so rather than hang
            self._execution.set_status("Failed", f"InternalServerError: {type(error).__name__}: {error}")

    def _run_steps(self) -> None:
        execution = self._execution
        waiting = [step for name, step in execution.definition.steps.items() if name not in execution.steps]
        limit = execution.identity.parallelism or DEFAULT_PARALLEL_STEPS
        skipped: set[str] = set()
        running: set[str] = set()
        while True:
            waiting = self._begin_ready(waiting, running, skipped, limit)
            if not running:
                break
            running.discard(self._ended.get())
        if self._stop.is_set:
            execution.set_status("Stopped")
        else:
            execution.set_status(*final_status(execution))

    def _begin_ready(
        self, waiting: list[DefinedStep], running: set[str], skipped: set[str], limit: int
    ) -> list[DefinedStep]:
        """Begin every step that is ready, and skip those that never will be; return the steps that still wait."""
        changed = True
        while changed and not self._stop.is_set:
            changed, left = False, []
            for step in waiting:
                ready = readiness(step, self._execution.steps, skipped)
                if ready is None or (ready and len(running) >= limit):
                    left.append(step)
                elif ready:
                    running.add(step.name)
                    self._begin(step)
                else:
                    skipped.add(step.name)
                    changed = True
            waiting = left
        return waiting

    def _begin(self, step: DefinedStep) -> None:
        self._execution.set_step(step.name, status="Executing", start_time=time.time())
        threading.Thread(target=self._attempt, args=(step,), daemon=True).start()

    def _attempt(self, step: DefinedStep) -> None:
        changes: dict[str, object]
        try:
            self._run_step(step, self._stop)
            changes = {"status": "Succeeded"}
        except StepStoppedError:
            changes = {"status": "Stopped"}
        except StepFailureError as error:
            changes = {"status": "Failed", "failure_reason": error.reason}
        except Exception as error:
            changes = {"status": "Failed", "failure_reason": f"InternalServerError: {type(error).__name__}: {error}"}
        try:
            self._execution.set_step(step.name, end_time=time.time(), **changes)
        finally:
            self._ended.put(step.name)


def _triggered(status: str, trigger: str) -> bool:
    return trigger == "Any" or status == {"Completed": "Succeeded"}.get(trigger, trigger)


def _is_handled(failed: str, execution: LocalExecution) -> bool:
    """Whether a step that waits for this step's failure has succeeded."""
    return any(
        state.status == "Succeeded" and execution.definition.steps[name].dependencies.get(failed) in ("Failed", "Any")
        for name, state in execution.steps.items()
    )
