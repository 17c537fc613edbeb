"""What every step is built from: settings, parameters, the session that captures requests, and the bucket's layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sagemaker.core.helper.pipeline_variable import PipelineVariable
from sagemaker.core.network import NetworkConfig
from sagemaker.core.training.configs import Networking
from sagemaker.core.workflow.functions import Join
from sagemaker.mlops.workflow import (
    CacheConfig,
    SageMakerJobExceptionTypeEnum,
    SageMakerJobStepRetryPolicy,
    StepExceptionTypeEnum,
    StepRetryPolicy,
)

from params.layout import ASYNC, CHECKPOINTS, EVALUATION, LATENTS, MODEL, REFERENCE, SHARDS
from params.model import Model, unmentioned
from params.phases import Phase
from params.settings import Settings
from pipeline_definition.definition.parameters import PipelineParameters

if TYPE_CHECKING:
    from sagemaker.core.workflow.pipeline_context import PipelineSession


@dataclass(frozen=True)
class Blueprint:
    """Everything that the steps share."""

    settings: Settings
    parameters: PipelineParameters
    session: PipelineSession

    @property
    def cache(self) -> CacheConfig:
        """An unchanged step is not run again for this long."""
        return CacheConfig(enable_caching=True, expire_after=self.settings.cache_expires_after)

    @property
    def service_retries(self) -> list[StepRetryPolicy]:
        """Faults and throttling of the service pass in seconds to minutes."""
        faults = [StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING]
        return [StepRetryPolicy(exception_types=faults, interval_seconds=10, backoff_rate=2.0, max_attempts=5)]

    @property
    def job_retries(self) -> list[StepRetryPolicy | SageMakerJobStepRetryPolicy]:
        """Missing capacity passes in minutes to hours; a job that broke inside the service is worth two more tries."""
        capacity = SageMakerJobStepRetryPolicy(
            exception_types=[
                SageMakerJobExceptionTypeEnum.CAPACITY_ERROR,
                SageMakerJobExceptionTypeEnum.RESOURCE_LIMIT,
            ],
            interval_seconds=300,
            backoff_rate=1.5,
            max_attempts=10,
        )
        internal = SageMakerJobStepRetryPolicy(
            exception_types=[SageMakerJobExceptionTypeEnum.INTERNAL_ERROR],
            interval_seconds=30,
            backoff_rate=2.0,
            max_attempts=2,
        )
        return [*self.service_retries, capacity, internal]

    @property
    def processing_network(self) -> NetworkConfig | None:
        """The jobs' private network, where the parameter set names one."""
        account = self.settings.account
        if not account.subnets:
            return None
        return NetworkConfig(subnets=list(account.subnets), security_group_ids=list(account.security_groups))

    @property
    def training_network(self) -> Networking | None:
        """The same for training jobs; FSx for Lustre is only reachable from inside it."""
        account = self.settings.account
        if not account.subnets:
            return None
        return Networking(subnets=list(account.subnets), security_group_ids=list(account.security_groups))

    # The bucket's layout. No execution id in any of these: it would defeat step caching.

    @property
    def shards_uri(self) -> Join:
        """WebDataset shards of this data set."""
        return self._uri(SHARDS, self.parameters.dataset)

    def latents_name(self, phase: Phase) -> list[str | PipelineVariable]:
        """Path of a phase's latents under the latents prefix, in S3 and on the file system alike."""
        return [self.parameters.dataset, f"{phase.encode.resolution_px}px"]

    def latents_uri(self, phase: Phase) -> Join:
        """Latents of this data set at a phase's resolution."""
        return self._uri(LATENTS, *self.latents_name(phase))

    def reference_uri(self, phase: Phase) -> Join:
        """Held-out pictures and captions."""
        return self._uri(REFERENCE, *self.latents_name(phase))

    def checkpoints_uri(self, phase: Phase) -> Join:
        """Checkpoints of one phase of this training run: each on its own, since a job fetches all that is there."""
        run: str | PipelineVariable = self.parameters.training_run
        if phase.suffix:
            run = Join(on="-", values=[run, phase.suffix.lower()])
        return self._uri(CHECKPOINTS, self.parameters.dataset, run)

    @property
    def models_uri(self) -> Join:
        """Trained models: SageMaker appends the training job's name."""
        return self._uri(MODEL, self.parameters.dataset)

    def tuning_uri(self) -> Join:
        """Models of the tuning trials, and what was measured before training: none of it is kept for long."""
        return self._uri("tuning", self.parameters.dataset)

    @property
    def tuning_checkpoints_uri(self) -> Join:
        """Checkpoints of the tuning trials, where they run on spot instances."""
        return self._uri(CHECKPOINTS, self.parameters.dataset, "tuning")

    @property
    def samples_uri(self) -> Join:
        """Pictures of evaluations under way: a killed one resumes from them, and several hosts share the work."""
        return self._uri("samples", self.parameters.dataset)

    def evaluation_uri(self, training_job_name: PipelineVariable) -> Join:
        """Metrics and pictures of one trained model."""
        return self._uri(EVALUATION, self.parameters.dataset, training_job_name)

    def async_uri(self, *parts: str | PipelineVariable) -> Join:
        """Requests and answers of an asynchronous endpoint."""
        return self._uri(ASYNC, *parts)

    def _uri(self, *parts: str | PipelineVariable) -> Join:
        return Join(on="/", values=["s3:/", self.parameters.bucket, *parts])


def program_values(step: Model, program: type[Model]) -> dict[str, Any]:
    """Return the part of a step's settings that its program's command line takes."""
    return step.model_dump(include=set(program.model_fields) - unmentioned(step))
