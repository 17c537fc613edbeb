"""One step of an execution: resolves its arguments, takes a cached result or does the step, keeps its properties."""

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline_definition.local.cache import CachedResult, StepCache
from pipeline_definition.local.catalogue import Catalogue
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
from pipeline_definition.local.request_checks import check_request
from pipeline_definition.local.resolver import Resolver, to_text
from pipeline_definition.local.retries import with_retries
from pipeline_definition.local.services import Services
from pipeline_definition.local.stop_signal import StopSignal
from pipeline_definition.local.training import TrainingJobs
from pipeline_definition.local.tuning import TuningJobs

_JOB_NAME_CHARACTERS = 63
_TUNING_NAME_CHARACTERS = 32


@dataclass
class Kinds:
    """What does the work of each kind of step."""

    processing: ProcessingJobs
    training: TrainingJobs
    tuning: TuningJobs
    registry: ModelRegistry
    hosting: Hosting
    models: Catalogue
    endpoint_configs: Catalogue


@dataclass
class Attempt:
    step: DefinedStep
    arguments: dict[str, Any]
    name: str
    """Of the job, model or search that it makes."""
    stop: StopSignal


class StepRunner:
    def __init__(self, services: Services, kinds: Kinds, execution: LocalExecution) -> None:
        self._services, self._kinds, self._execution = services, kinds, execution
        self._cache = StepCache(services.settings.state / "cache", execution.identity.pipeline_name)
        self._do: dict[str, Callable[[Attempt], Record]] = {
            "Processing": lambda attempt: self._job(attempt, kinds.processing, "ProcessingJob"),
            "Training": lambda attempt: self._job(attempt, kinds.training, "TrainingJob"),
            "Tuning": lambda attempt: self._job(attempt, kinds.tuning, "TuningJob"),
            "Model": lambda attempt: self._create(attempt, kinds.models, attempt.name),
            "RegisterModel": self._register,
            "EndpointConfig": self._endpoint_config,
            "Endpoint": self._endpoint,
            "Condition": self._condition,
            "Fail": self._fail,
        }

    def run(self, step: DefinedStep, stop: StopSignal) -> None:
        """Do one step, or take what an earlier execution left; raises StepFailureError or StepStoppedError."""
        arguments: Mapping[str, Any] = {}
        if step.cache_expires_after_s is not None:
            # The job's own name differs each time and must not decide.
            resolver = self._resolver().with_variables(TrainingJobName="", ProcessingJobName="")
            arguments = resolver.resolve(dict(step.arguments))
            result = self._cache.find(step, arguments)
            if result is not None:
                kept = {"properties": result.properties, "metadata": result.metadata}
                self._execution.set_step(step.name, cache_source=result.source_arn, **kept)
                return
        properties = with_retries(step.retry_policies, lambda: self._attempt(step, stop), stop.sleep)
        state = self._execution.set_step(step.name, properties=properties)
        result = CachedResult(self._execution.identity.arn, time.time(), properties, state.metadata)
        self._cache.keep(step, arguments, result)

    def _attempt(self, step: DefinedStep, stop: StopSignal) -> Record:
        number = self._execution.attempts[step.name] + 1
        self._execution.set_step(step.name, attempts=number)
        try:
            name = self._name(step, number)
            resolver = self._resolver().with_variables(TrainingJobName=name, ProcessingJobName=name)
            # Of conditions, only those are resolved that decide.
            own = {} if step.type == "Condition" else resolver.resolve(dict(step.arguments))
            return self._do[step.type](Attempt(step, own, name, stop))
        except OSError as error:
            raise StepFailureError(f"InternalServerError: {error}", "Step.SERVICE_FAULT") from None

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

    def _endpoint_config(self, attempt: Attempt) -> Record:
        name, suffix = attempt.arguments.get("EndpointConfigName"), self._services.cloud.name_suffix
        own = _suffixed(attempt, name, suffix) if name else attempt.name
        return self._create(attempt, self._kinds.endpoint_configs, own)

    def _create(self, attempt: Attempt, catalogue: Catalogue, name: str) -> Record:
        """Create a model or an endpoint configuration; return what Describe says of it."""
        kind = catalogue.prefix
        request = {**attempt.arguments, f"{kind}Name": name}
        check_request(f"Create{kind}", request)
        record = catalogue.add(request)
        self._show(attempt, **{kind: {"Arn": record[f"{kind}Arn"]}})
        return record

    def _register(self, attempt: Attempt) -> Record:
        check_request("CreateModelPackage", attempt.arguments)
        if "ModelPackageGroupName" in attempt.arguments:
            self._kinds.registry.ensure_group(attempt.arguments["ModelPackageGroupName"])
        package_arn = self._kinds.registry.create_model_package(attempt.arguments)["ModelPackageArn"]
        self._show(attempt, RegisterModel={"Arn": package_arn})
        return self._kinds.registry.describe_model_package({"ModelPackageName": package_arn})

    def _endpoint(self, attempt: Attempt) -> Record:
        request = {"EndpointName": attempt.name, **attempt.arguments}
        check_request("CreateEndpoint", request)
        self._show(attempt, Endpoint={"Arn": arn("endpoint", request["EndpointName"])})
        return self._kinds.hosting.serve(request, attempt.stop)

    def _condition(self, attempt: Attempt) -> Record:
        resolve = self._resolver().resolve
        outcome = all(holds(condition, resolve) for condition in attempt.step.arguments.get("Conditions") or ())
        self._show(attempt, Condition={"Outcome": str(outcome)})
        return {"Outcome": str(outcome)}

    def _fail(self, attempt: Attempt) -> Record:
        message = to_text(attempt.arguments.get("ErrorMessage", ""))
        self._show(attempt, Fail={"ErrorMessage": message})
        raise StepFailureError(message or f"{attempt.step.name} was reached")


def _suffixed(attempt: Attempt, name: str, characters: int) -> str:
    """Return a given name with what SageMaker appends for each execution; StepFailureError where it becomes too long.

    Source: https://github.com/aws/sagemaker-python-sdk/pull/6224
    """
    digest = hashlib.sha256(attempt.name.encode()).hexdigest()
    own = f"{name}-{digest}"[: len(name) + characters]
    if len(own) > _JOB_NAME_CHARACTERS:
        limit = f"Member must have length less than or equal to {_JOB_NAME_CHARACTERS}"
        problem = f"Value '{own}' at 'EndpointConfigName' failed to satisfy constraint: {limit}"
        raise StepFailureError(f"ClientError: {problem}")
    return own
