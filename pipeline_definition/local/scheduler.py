"""The order of an execution's steps: each begins once the steps that it needs have ended; branches run in parallel.

One thread for each execution and one for each running step; nothing polls.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping

from params.layout import ENDED_STATUSES
from pipeline_definition.local.definition import DefinedStep
from pipeline_definition.local.errors import StepStoppedError, as_failure
from pipeline_definition.local.execution import LocalExecution, StepState
from pipeline_definition.local.stop_signal import StopSignal

# SageMaker's own limit where ParallelismConfiguration says nothing.
DEFAULT_PARALLEL_STEPS = 50
RunStep = Callable[[DefinedStep, StopSignal], None]


def readiness(step: DefinedStep, states: Mapping[str, StepState], skipped: set[str]) -> bool | None:
    """Whether a step can begin now: True; never: False; not yet: None."""
    if step.needed & skipped:
        return False
    ended = {name: states[name] for name in step.needed if name in states and states[name].status in ENDED_STATUSES}
    condition = ended.get(step.branch.condition) if step.branch else None
    if step.branch and condition:
        outcome = (condition.properties or {}).get("Outcome")
        if condition.status != "Succeeded" or outcome != str(step.branch.outcome):
            return False
    for name, trigger in step.dependencies.items():
        status = ended[name].status if name in ended else None
        if status and trigger not in ("Any", "Completed" if status == "Succeeded" else status):
            return False
    return True if len(ended) == len(step.needed) else None


def final_status(execution: LocalExecution) -> tuple[str, str | None]:
    """Return the status and failure reason of an execution whose steps have all ended."""
    failed = [state for state in execution.steps.values() if state.status == "Failed"]
    unhandled = [state for state in failed if not _is_handled(state.name, execution)]
    if unhandled:
        reasons = [f"Step failure: {state.name}: {state.failure_reason}" for state in unhandled]
        return "Failed", "; ".join(reasons)[:3000]
    return ("CompletedWithFailures" if failed else "Succeeded"), None


class Scheduler(threading.Thread):
    def __init__(self, execution: LocalExecution, run_step: RunStep) -> None:
        super().__init__(daemon=True)
        self._execution, self._run_step = execution, run_step
        self._stopping = StopSignal()
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()

    def stop(self) -> None:
        if self._execution.status == "Executing":
            self._execution.set_status("Stopping")
        self._stopping.set()

    def run(self) -> None:
        """Run the execution to its end; the thread does."""
        try:
            self._run_steps()
        except Exception as error:  # such as a full disk: say so rather than hang
            self._execution.status, self._execution.failure_reason = "Failed", as_failure(error).reason
            self._execution.set_status("Failed", self._execution.failure_reason)

    def _run_steps(self) -> None:
        execution = self._execution
        waiting = {name: step for name, step in execution.definition.steps.items() if name not in execution.steps}
        limit = execution.identity.parallelism or DEFAULT_PARALLEL_STEPS
        skipped: set[str] = set()
        running: set[str] = set()
        has_failed = False
        while True:
            self._begin_ready(waiting, running, skipped, limit)
            if not running:
                break
            name = self._done.get()
            running.discard(name)
            if execution.definition.steps[name].type == "Fail":  # it stops what runs beside it, too
                has_failed = True
                self._stopping.set()
        if self._stopping.is_set and not has_failed:
            execution.set_status("Stopped")
        else:
            execution.set_status(*final_status(execution))

    def _begin_ready(self, waiting: dict[str, DefinedStep], running: set[str], skipped: set[str], limit: int) -> None:
        """Begin every step that is ready, and skip those that never will be."""
        skipped_before = -1
        while skipped_before != len(skipped) and not self._stopping.is_set:
            skipped_before = len(skipped)
            for step in list(waiting.values()):
                ready = readiness(step, self._execution.steps, skipped)
                if ready is None or (ready and len(running) >= limit):
                    continue
                del waiting[step.name]
                if ready:
                    running.add(step.name)
                    self._begin(step)
                else:
                    skipped.add(step.name)

    def _begin(self, step: DefinedStep) -> None:
        self._execution.set_step(step.name, status="Executing", start_time=time.time())
        threading.Thread(target=self._attempt, args=(step,), daemon=True).start()

    def _attempt(self, step: DefinedStep) -> None:
        changes: dict[str, object]
        try:
            self._run_step(step, self._stopping)
            changes = {"status": "Succeeded"}
        except StepStoppedError:
            changes = {"status": "Stopped"}
        except Exception as error:
            changes = {"status": "Failed", "failure_reason": as_failure(error).reason}
        try:
            self._execution.set_step(step.name, end_time=time.time(), **changes)
        finally:
            self._done.put(step.name)


def _is_handled(failed: str, execution: LocalExecution) -> bool:
    """Whether a step that waits for this step's failure has succeeded."""
    return any(
        state.status == "Succeeded" and execution.definition.steps[name].dependencies.get(failed) in ("Failed", "Any")
        for name, state in execution.steps.items()
    )
