"""What every step is built from: settings, parameters, the session that captures requests, and the bucket's layout."""

from dataclasses import dataclass
from typing import Any, TypeVar

from sagemaker.core.helper.pipeline_variable import PipelineVariable
from sagemaker.core.network import NetworkConfig
from sagemaker.core.training.configs import Networking
from sagemaker.core.workflow.functions import Join
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.mlops import workflow

from params.layout import CHECKPOINTS
from params.model import Model, unmentioned
from params.phases import Phase
from params.settings import Settings
from pipeline_definition.definition.parameters import PipelineParameters

N = TypeVar("N", NetworkConfig, Networking)


@dataclass(frozen=True)
class Blueprint:
    """Everything that the steps share."""

    settings: Settings
    parameters: PipelineParameters
    session: PipelineSession

    @property
    def service_retries(self) -> list[workflow.StepRetryPolicy]:
        """Faults and throttling of the service pass in seconds to minutes."""
        faults = [workflow.StepExceptionTypeEnum.SERVICE_FAULT, workflow.StepExceptionTypeEnum.THROTTLING]
        return [workflow.StepRetryPolicy(exception_types=faults, interval_seconds=10, backoff_rate=2.0, max_attempts=5)]

    @property
    def job_options(self) -> dict[str, Any]:
        """What every step with a job has: a cache, and tries where capacity comes in hours or the service broke it."""
        capacity = workflow.SageMakerJobStepRetryPolicy(
            exception_types=[
                workflow.SageMakerJobExceptionTypeEnum.CAPACITY_ERROR,
                workflow.SageMakerJobExceptionTypeEnum.RESOURCE_LIMIT,
            ],
            interval_seconds=300,
            backoff_rate=1.5,
            max_attempts=10,
        )
        internal = workflow.SageMakerJobStepRetryPolicy(
            exception_types=[workflow.SageMakerJobExceptionTypeEnum.INTERNAL_ERROR],
            interval_seconds=30,
            backoff_rate=2.0,
            max_attempts=2,
        )
        cache = workflow.CacheConfig(enable_caching=True, expire_after=self.settings.cache_expires_after)
        return {"cache_config": cache, "retry_policies": [*self.service_retries, capacity, internal]}

    def network(self, kind: type[N]) -> N | None:
        """The jobs' private network, where the parameter set names one; FSx for Lustre is only reachable from it."""
        account = self.settings.account
        if not account.subnets:
            return None
        return kind(subnets=list(account.subnets), security_group_ids=list(account.security_groups))

    def uri(self, kind: str, *parts: str | PipelineVariable) -> Join:
        """Return a place of this data set, without an execution's id, which would defeat step caching."""
        return Join(on="/", values=["s3:/", self.parameters.bucket, kind, self.parameters.dataset, *parts])

    def checkpoints_uri(self, phase: Phase) -> Join:
        """Checkpoints of one phase of this training run: each on its own, since a job fetches all that is there."""
        run: str | PipelineVariable = self.parameters.training_run
        if phase.suffix:
            run = Join(on="-", values=[run, phase.suffix.lower()])
        return self.uri(CHECKPOINTS, run)


def size_folder(phase: Phase) -> str:
    """Return the folder of a phase's latents and reference set, in S3 and on the file system alike."""
    return f"{phase.encode.resolution_px}px"


def program_values(step: Model, program: type[Model]) -> dict[str, Any]:
    """Return the part of a step's settings that its program's command line takes."""
    return step.model_dump(include=set(program.model_fields) - unmentioned(step))
