"""All executions of all pipelines, behind SageMaker's operations for them."""

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

from params.layout import ENDED_STATUSES
from pipeline_definition.local.definition import parse_definition
from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import invalid, not_found
from pipeline_definition.local.execution import ExecutionIdentity, LocalExecution
from pipeline_definition.local.parameters import resolve_parameters
from pipeline_definition.local.pipelines import Pipelines
from pipeline_definition.local.records import Record, page
from pipeline_definition.local.scheduler import Scheduler
from pipeline_definition.local.services import Services
from pipeline_definition.local.step_runner import Kinds, StepRunner

_log = logging.getLogger(__name__)


class LocalExecutions:
    def __init__(self, services: Services, kinds: Kinds, state_id: str) -> None:
        self._services, self._kinds, self._state_id = services, kinds, state_id
        self.pipelines = Pipelines(services)
        self._executions: dict[str, LocalExecution] = {}
        self._schedulers: dict[str, Scheduler] = {}

    def load(self) -> None:
        """Take up the executions on disk; those that ran when the control plane was killed are stopped."""
        runs = self._services.settings.runs
        for path in sorted(runs.glob("*/execution.json")) if runs.is_dir() else ():
            try:
                execution = LocalExecution.load(path.parent)
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                _log.warning("%s is damaged, and left out: %s", path.parent, error)
                continue
            if execution.identity.state_id == self._state_id:
                self._executions[execution.identity.arn] = execution
                if execution.status not in ENDED_STATUSES:
                    execution.interrupt()

    def delete_pipeline(self, request: Mapping[str, Any]) -> Record:
        """Answer DeletePipeline: with its executions it is out of sight; one that runs is kept."""
        name = self.pipelines.find(request["PipelineName"])["PipelineName"]
        running = [e.identity.arn for e in self._of(name) if e.status not in ENDED_STATUSES]
        if running:
            raise invalid(f"Pipeline {name} has an execution that runs: {running[0]}")
        return self.pipelines.delete(request)

    def start_pipeline_execution(self, request: Mapping[str, Any]) -> Record:
        token = request.get("ClientRequestToken")
        for earlier in self._executions.values():
            if token and earlier.identity.client_token == token:
                return {"PipelineExecutionArn": earlier.identity.arn}
        pipeline = self.pipelines.find(request["PipelineName"])
        version = self.pipelines.version(pipeline, request.get("PipelineVersionId"))
        name = pipeline["PipelineName"]
        definition = parse_definition(version["PipelineDefinition"], self._services.settings.refuse_image)
        given = list(request.get("PipelineParameters") or ())
        parameters = resolve_parameters(definition.parameters, given)
        parallelism = request.get("ParallelismConfiguration") or pipeline.get("ParallelismConfiguration") or {}
        now_s = time.time()
        identity = ExecutionIdentity(
            arn=arn("pipeline", f"{name}/execution/{uuid.uuid4().hex[-12:]}"),
            pipeline_name=name,
            pipeline_arn=pipeline["PipelineArn"],
            pipeline_version=version["PipelineVersionId"],
            state_id=self._state_id,
            start_time=now_s,
            given_parameters=given,
            parallelism=parallelism.get("MaxParallelExecutionSteps"),
            display_name=request.get("PipelineExecutionDisplayName"),
            description=request.get("PipelineExecutionDescription"),
            client_token=token,
        )
        execution = LocalExecution.begin(self._services.settings.runs / identity.id, identity, definition, parameters)
        self._executions[identity.arn] = execution
        self._run(execution)
        return {"PipelineExecutionArn": identity.arn}

    def stop_pipeline_execution(self, request: Mapping[str, Any]) -> Record:
        execution = self._get(request)
        if execution.status not in ("Executing", "Stopping"):
            raise invalid(f"Pipeline execution {execution.identity.arn} has ended: {execution.status}")
        self._schedulers[execution.identity.arn].stop()
        return {"PipelineExecutionArn": execution.identity.arn}

    def retry_pipeline_execution(self, request: Mapping[str, Any]) -> Record:
        """Answer RetryPipelineExecution: steps that have succeeded are kept, the others begin anew."""
        execution = self._get(request)
        if execution.status not in ("Failed", "Stopped"):
            raise invalid(f"Only a failed or stopped execution can be retried; this one is {execution.status}")
        execution.forget_unfinished_steps()
        execution.set_status("Executing")
        self._run(execution)
        return {"PipelineExecutionArn": execution.identity.arn}

    def describe_pipeline_execution(self, request: Mapping[str, Any]) -> Record:
        return _description(self._get(request))

    def list_pipeline_executions(self, request: Mapping[str, Any]) -> Record:
        name = self.pipelines.find(request["PipelineName"])["PipelineName"]
        executions = [_description(e) for e in self._of(name)]
        return page("ListPipelineExecutions", request, executions, "PipelineExecutionArn")

    def descriptions(self) -> list[Record]:
        return [_description(execution) for execution in self._executions.values()]

    def update_pipeline_execution(self, request: Mapping[str, Any]) -> Record:
        execution = self._get(request)
        execution.rename(request.get("PipelineExecutionDisplayName"), request.get("PipelineExecutionDescription"))
        return {"PipelineExecutionArn": execution.identity.arn}

    def list_pipeline_execution_steps(self, request: Mapping[str, Any]) -> Record:
        """Answer ListPipelineExecutionSteps: newest first unless asked otherwise; omits steps that have not begun."""
        execution = self._get(request)
        steps = execution.definition.steps
        states = [state.as_api(steps[state.name].source) for state in list(execution.steps.values())]
        return page("ListPipelineExecutionSteps", request, states, "StepName")

    def list_pipeline_parameters_for_execution(self, request: Mapping[str, Any]) -> Record:
        given = self._get(request).identity.given_parameters
        return page("ListPipelineParametersForExecution", request, given, "Name")

    def describe_pipeline_definition_for_execution(self, request: Mapping[str, Any]) -> Record:
        execution = self._get(request)
        return {"PipelineDefinition": execution.definition.text, "CreationTime": execution.identity.start_time}

    def shut_down(self) -> None:
        """Stop what runs and wait for it; it can be retried at the next start."""
        schedulers = self._schedulers.items()
        running = [scheduler for arn, scheduler in schedulers if self._executions[arn].status not in ENDED_STATUSES]
        for scheduler in running:
            scheduler.stop()
        for scheduler in running:
            scheduler.join()

    def _run(self, execution: LocalExecution) -> None:
        runner = StepRunner(self._services, self._kinds, execution)
        scheduler = Scheduler(execution, runner.run)
        self._schedulers[execution.identity.arn] = scheduler
        scheduler.start()

    def _get(self, request: Mapping[str, Any]) -> LocalExecution:
        name = request["PipelineExecutionArn"]
        if name not in self._executions:
            raise not_found(f"Pipeline execution with ARN {name} does not exist.")
        return self._executions[name]

    def _of(self, name: str) -> list[LocalExecution]:
        """Return a pipeline's executions: those that began after it was made, for there may have been one before it."""
        since_s = self.pipelines.find(name)["CreationTime"]
        executions = [e for e in list(self._executions.values()) if e.identity.pipeline_name == name]
        return [execution for execution in executions if execution.identity.start_time >= since_s]


def _description(execution: LocalExecution) -> Record:
    """Return what Describe and List say of an execution: some of it by two names."""
    identity = execution.identity
    described = {
        "PipelineArn": identity.pipeline_arn,
        "PipelineVersionId": identity.pipeline_version,
        "PipelineExecutionArn": identity.arn,
        "PipelineExecutionStatus": execution.status,
        "PipelineExecutionDisplayName": identity.display_name,
        "PipelineExecutionDescription": identity.description,
        "CreationTime": identity.start_time,
        "StartTime": identity.start_time,
        "LastModifiedTime": execution.modified_time,
        "FailureReason": execution.failure_reason,
        "PipelineExecutionFailureReason": execution.failure_reason,
        "ParallelismConfiguration": identity.parallelism and {"MaxParallelExecutionSteps": identity.parallelism},
    }
    return {name: value for name, value in described.items() if value}
