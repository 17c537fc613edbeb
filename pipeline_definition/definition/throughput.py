"""The optional Throughput step: iterations/s, images/s, MFU and memory of Train's own hosts at each micro-batch size.

What it measures is in its job's log and metrics, and in throughput.json of its output.
"""

from __future__ import annotations

from typing import Any

from sagemaker.core.training.configs import OutputDataConfig, StoppingCondition
from sagemaker.mlops.workflow import ProcessingStep, TrainingStep

from params.layout import THROUGHPUT_STEP, TUNING
from params.programs import MONEY, TrainArguments
from params.stages import ThroughputStep
from pipeline_definition.definition.blueprint import Blueprint, program_values
from pipeline_definition.definition.training import channels, compute_on, latents_address, metric_definitions, trainer

# Where a training resumes, what it may cost, and what is fetched for it: nothing is trained here.
LEFT_OUT = (*MONEY, "checkpoints_uri", "shards_uri", "warm_latents")


def throughput_step(blueprint: Blueprint, settings: ThroughputStep, encode: ProcessingStep) -> TrainingStep:
    """Return the step that measures the first phase's training."""
    phase = blueprint.settings.phases[0]
    hosts = blueprint.parameters.of_phase(phase).training
    values = program_values(phase.train, TrainArguments)
    hyperparameters: dict[str, Any] = {
        **{name: value for name, value in values.items() if name not in LEFT_OUT},
        **latents_address(blueprint, encode),
        "throughput_micro_batch_sizes": settings.micro_batch_sizes,
        "throughput_s": settings.seconds_per_size,
    }
    model_trainer = trainer(
        blueprint,
        THROUGHPUT_STEP.lower(),
        hyperparameters,
        compute_on(hosts, phase.train.job),
        # As in Train: SageMaker's cache key leaves the hosts out.
        environment={"TRAINING_INSTANCE_COUNT": hosts.instance_count.to_string()},
        stopping_condition=StoppingCondition(max_runtime_in_seconds=settings.max_runtime_s),
        output_data_config=OutputDataConfig(s3_output_path=blueprint.uri(TUNING)),
    ).with_metric_definitions(metric_definitions())
    return TrainingStep(
        name=THROUGHPUT_STEP,
        description="Iterations/s, images/s, MFU and memory of Train's hosts at each micro-batch size",
        step_args=model_trainer.train(input_data_config=channels(blueprint, phase, encode)),
        depends_on=[encode],
        cache_config=blueprint.cache,
        retry_policies=blueprint.job_retries,
    )
