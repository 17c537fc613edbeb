"""One step of an execution: resolves its arguments, takes a cached result or does the step, keeps its properties."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipeline_definition.local.cache import CachedResult, StepCache
from pipeline_definition.local.conditions import holds
from pipeline_definition.local.definition import DefinedStep
from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.execution import LocalExecution
from pipeline_definition.local.hosting import Hosting
from pipeline_definition.local.jobs import Jobs
from pipeline_definition.local.model_registry import ModelRegistry
from pipeline_definition.local.processing import ProcessingJobs
from pipeline_definition.local.records import Record
from pipeline_definition.local.request_shapes import OPERATIONS, check_request
from pipeline_definition.local.resolver import Resolver, to_text
from pipeline_definition.local.retries import with_retries
from pipeline_definition.local.services import Services
from pipeline_definition.local.stop_signal import StopSignal
from pipeline_definition.local.training import TrainingJobs
from pipeline_definition.local.tuning import TuningJobs

_JOB_NAME_CHARACTERS = 63
_TUNING_NAME_CHARACTERS = 32
_THROTTLED = ("ThrottlingException", "Throttling", "TooManyRequestsException")


@dataclass
class Kinds:
    """What does the work of each kind of step."""

    processing: ProcessingJobs
    training: TrainingJobs
    tuning: TuningJobs
    registry: ModelRegistry
    hosting: Hosting


@dataclass
class Attempt:
    """One attempt at a step."""

    step: DefinedStep
    arguments: dict[str, Any]
    name: str
    """Of the job, model or search that it makes."""
    stop: StopSignal


class StepRunner:
    """Does the steps of one execution."""

    def __init__(self, services: Services, kinds: Kinds, execution: LocalExecution) -> None:
        self._services, self._kinds, self._execution = services, kinds, execution
        self._cache = StepCache(services.settings.state / "cache", execution.identity.pipeline_name)
        self._do: dict[str, Callable[[Attempt], Record]] = {
            "Processing": lambda attempt: self._job(attempt, kinds.processing, "ProcessingJob"),
            "Training": lambda attempt: self._job(attempt, kinds.training, "TrainingJob"),
            "Tuning": lambda attempt: self._job(attempt, kinds.tuning, "TuningJob"),
            "Model": self._model,
            "RegisterModel": self._register,
            "EndpointConfig": self._endpoint_config,
            "Endpoint": self._endpoint,
            "Condition": self._condition,
            "Fail": self._fail,
            "Lambda": self._lambda,
        }

    def run(self, step: DefinedStep, stop: StopSignal) -> None:
        """Do one step; raises StepFailureError or StepStoppedError."""
        if step.type != "Condition" and self._take_cached(step):
            return
        properties = with_retries(step.retry_policies, lambda: self._attempt(step, stop), stop.sleep)
        state = self._execution.set_step(step.name, properties=properties)
        if step.cache_expires_after_s is not None:
            result = CachedResult(self._execution.identity.arn, time.time(), properties, state.metadata)
            self._cache.keep(step, self._cache_arguments(step), result)

    def _take_cached(self, step: DefinedStep) -> bool:
        if step.cache_expires_after_s is None:
            return False
        result = self._cache.find(step, self._cache_arguments(step))
        if result is None:
            return False
        self._execution.set_step(
            step.name, properties=result.properties, metadata=result.metadata, cache_source=result.source_arn
        )
        return True

    def _cache_arguments(self, step: DefinedStep) -> Mapping[str, Any]:
        # The job's own name differs each time and must not decide.
        resolver = self._resolver().with_variables(TrainingJobName="", ProcessingJobName="")
        resolved: Mapping[str, Any] = resolver.resolve(dict(step.arguments))
        return resolved

    def _attempt(self, step: DefinedStep, stop: StopSignal) -> Record:
        number = self._execution.attempts_of(step.name) + 1
        self._execution.set_step(step.name, attempts=number)
        try:
            return self._do[step.type](self._prepared(step, number, stop))
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            kind = "Step.THROTTLING" if code in _THROTTLED else None
            raise StepFailureError(f"ClientError: {error}", kind) from None
        except (BotoCoreError, OSError) as error:
            raise StepFailureError(f"InternalServerError: {error}", "Step.SERVICE_FAULT") from None

    def _prepared(self, step: DefinedStep, number: int, stop: StopSignal) -> Attempt:
        name = self._name(step, number)
        resolver = self._resolver().with_variables(TrainingJobName=name, ProcessingJobName=name)
        # The steps in a condition's branches are not its arguments.
        own = {} if step.type == "Condition" else resolver.resolve(dict(step.arguments))
        return Attempt(step, own, name, stop)

    def _name(self, step: DefinedStep, number: int) -> str:
        """Return the job's name: it depends on the execution, the step and the attempt alone."""
        identity = self._execution.identity
        token = hashlib.sha256(f"{identity.arn}/{step.name}/{number}".encode()).hexdigest()[:10]
        given = step.arguments.get("ProcessingJobName") or step.arguments.get("ModelName")
        plain = re.sub(r"[^a-zA-Z0-9-]+", "-", given if isinstance(given, str) else step.name).strip("-")
        if step.type == "Tuning":
            room = _TUNING_NAME_CHARACTERS - len(identity.id) - len(token) - 2
            return "-".join([identity.id, plain[:room].strip("-"), token])
        head = [plain, identity.id] if isinstance(given, str) else ["pipelines", identity.id, plain]
        room = _JOB_NAME_CHARACTERS - len(token) - 1
        return f"{'-'.join(head)[:room].strip('-')}-{token}"

    def _resolver(self) -> Resolver:
        execution = self._execution
        return Resolver(
            definition=execution.definition,
            parameters=execution.parameters,
            variables=execution.identity.variables(),
            properties=execution.properties,
            read_object=self._services.store.read,
        )

    def _show(self, attempt: Attempt, **metadata: Record) -> None:
        self._execution.set_step(attempt.step.name, metadata=metadata)

    def _job(self, attempt: Attempt, jobs: Jobs, kind: str) -> Record:
        self._show(attempt, **{kind: {"Arn": arn(jobs.kind, attempt.name)}})
        request = {**attempt.arguments, f"{jobs.prefix}Name": attempt.name}
        return jobs.run(request, self._execution.folder / "logs" / attempt.step.name, attempt.stop)

    def _model(self, attempt: Attempt) -> Record:
        request = {**attempt.arguments, "ModelName": attempt.name}
        check_request(OPERATIONS["Model"], request)
        client = self._services.client("sagemaker")
        client.create_model(**request)
        model = _plain(client.describe_model(ModelName=attempt.name))
        self._show(attempt, Model={"Arn": model["ModelArn"]})
        return model

    def _register(self, attempt: Attempt) -> Record:
        check_request(OPERATIONS["RegisterModel"], attempt.arguments)
        if "ModelPackageGroupName" in attempt.arguments:
            self._kinds.registry.ensure_group(attempt.arguments["ModelPackageGroupName"])
        package_arn = self._kinds.registry.create_package(attempt.arguments)["ModelPackageArn"]
        self._show(attempt, RegisterModel={"Arn": package_arn})
        return self._kinds.registry.describe_package({"ModelPackageName": package_arn})

    def _endpoint_config(self, attempt: Attempt) -> Record:
        request = {"EndpointConfigName": attempt.name, **attempt.arguments}
        if self._services.cloud.name_suffix and "EndpointConfigName" in attempt.arguments:
            request["EndpointConfigName"] = _suffixed(attempt, "EndpointConfigName", self._services.cloud.name_suffix)
        check_request(OPERATIONS["EndpointConfig"], request)
        client = self._services.client("sagemaker")
        client.create_endpoint_config(**request)
        config = _plain(client.describe_endpoint_config(EndpointConfigName=request["EndpointConfigName"]))
        self._show(attempt, EndpointConfig={"Arn": config["EndpointConfigArn"]})
        return config

    def _endpoint(self, attempt: Attempt) -> Record:
        request = {"EndpointName": attempt.name, **attempt.arguments}
        check_request(OPERATIONS["Endpoint"], request)
        self._show(attempt, Endpoint={"Arn": arn("endpoint", request["EndpointName"])})
        return self._kinds.hosting.create_or_update(request, attempt.stop)

    def _condition(self, attempt: Attempt) -> Record:
        resolve = self._resolver().resolve
        outcome = all(holds(condition, resolve) for condition in attempt.step.arguments.get("Conditions") or ())
        self._show(attempt, Condition={"Outcome": str(outcome)})
        return {"Outcome": str(outcome)}

    def _fail(self, attempt: Attempt) -> Record:
        message = to_text(attempt.arguments.get("ErrorMessage", ""))
        self._show(attempt, Fail={"ErrorMessage": message})
        raise StepFailureError(message or f"{attempt.step.name} was reached")

    def _lambda(self, attempt: Attempt) -> Record:
        function_arn = str(attempt.step.source.get("FunctionArn"))
        raise StepFailureError(f"ClientError: no local handler is registered for the function {function_arn}")


def _suffixed(attempt: Attempt, member: str, characters: int) -> str:
    """Return a given name with what SageMaker appends, so that each execution has its own.

    Source: https://github.com/aws/sagemaker-python-sdk/pull/6224. Raises StepFailureError where it becomes too long.
    """
    digest = hashlib.sha256(attempt.name.encode()).hexdigest()
    name = f"{attempt.arguments[member]}-{digest}"[: len(attempt.arguments[member]) + characters]
    if len(name) > _JOB_NAME_CHARACTERS:
        limit = f"Member must have length less than or equal to {_JOB_NAME_CHARACTERS}"
        raise StepFailureError(f"ClientError: Value '{name}' at '{member}' failed to satisfy constraint: {limit}")
    return name


def _plain(response: dict[str, Any]) -> Record:
    """Return a boto3 response as a JSON document; times are seconds since 1970."""
    response.pop("ResponseMetadata")
    document: Record = json.loads(json.dumps(response, default=datetime.timestamp))
    return document
