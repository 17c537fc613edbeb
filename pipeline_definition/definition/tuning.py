"""The Tune step: a small-scale search on a fixed sample budget, judged by the validation loss."""

from __future__ import annotations

from typing import Any

from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter
from sagemaker.core.shapes import RetryStrategy
from sagemaker.core.training.configs import CheckpointConfig, OutputDataConfig
from sagemaker.mlops.workflow import ProcessingStep, TuningStep
from sagemaker.train.tuner import HyperparameterTuner

from params.arguments import to_text
from params.layout import CHECKPOINT_DIR, CHECKPOINTS, TRAINING_METRICS, TUNING, VALIDATION_LOSS, metric_regex
from params.phases import TUNED
from params.programs import MONEY, TrainArguments
from params.stages import Range
from pipeline_definition.definition.blueprint import Blueprint, program_values
from pipeline_definition.definition.training import (
    channels,
    compute_on,
    latents_address,
    stopping_condition,
    trainer,
)

# A trial reads too little to have everything fetched for it.
WHOLE_DATA = ("warm_latents",)
# A trial that a broken host ended would be left out of the search in silence, and Train would learn at another rate.
TRIES_ON_OTHER_HOSTS = 3


class TrialTuner(HyperparameterTuner):  # type: ignore[misc]
    """A tuner that grants its trials what the SDK's own leaves out: other hosts for broken ones."""

    def _build_training_job_definition(self, inputs: Any) -> Any:
        definition = super()._build_training_job_definition(inputs)
        definition.retry_strategy = RetryStrategy(maximum_retry_attempts=TRIES_ON_OTHER_HOSTS)
        return definition


def tune_step(blueprint: Blueprint, encode: ProcessingStep) -> TuningStep:
    """Return the step whose best trial's hyperparameters Train takes."""
    settings = blueprint.settings.tune
    tuner = TrialTuner(
        model_trainer=trial_trainer(blueprint, encode),
        objective_metric_name=VALIDATION_LOSS,
        objective_type="Minimize",
        metric_definitions=[{"Name": name, "Regex": metric_regex(name)} for name in TRAINING_METRICS],
        hyperparameter_ranges={
            "learning_rate": _interval(settings.learning_rate),
            "micro_batch_size": CategoricalParameter([to_text(size) for size in settings.micro_batch_size]),
            "caption_dropout": _interval(settings.caption_dropout),
        },
        strategy=settings.strategy,
        max_jobs=settings.trials,
        max_parallel_jobs=min(settings.parallel_trials, settings.trials),
        base_tuning_job_name="tune",
        random_seed=settings.seed if settings.strategy == "Random" else None,
    )
    return TuningStep(
        name="Tune",
        description="Learning rate, micro-batch and caption dropout on a fixed sample budget",
        step_args=tuner.tune(inputs=channels(blueprint, blueprint.settings.phases[0], encode), wait=False),
        depends_on=[encode],
        **blueprint.job_options,
    )


def trial_trainer(blueprint: Blueprint, encode: ProcessingStep) -> Any:
    """Return the trainer of one trial: the training program with a small budget."""
    p, settings = blueprint.parameters, blueprint.settings.tune
    values = program_values(blueprint.settings.train, TrainArguments)
    budget = p.tune_samples.to_string()
    # The budget is Train's: a trial is too short to be stopped by it, and runs on other hosts.
    left_out = (*TUNED, *MONEY, *WHOLE_DATA)
    hyperparameters = {
        **{name: value for name, value in values.items() if name not in left_out and value != ""},
        **latents_address(blueprint, encode),
        "training_samples": budget,
        "global_batch_size": settings.global_batch_size or p.global_batch_size.to_string(),
        # What is searched is the rate of the trial's own batch.
        "learning_rate_batch_size": 0,
        "warmup_samples": settings.warmup_samples,
        "validate_every_samples": budget,
        # On instances that stay, a trial is cheaper to run again than to checkpoint: it saves at its end only.
        "save_every_samples": settings.save_every_samples if settings.spot else budget,
    }
    checkpoints = CheckpointConfig(s3_uri=blueprint.uri(CHECKPOINTS, TUNING), local_path=CHECKPOINT_DIR)
    return trainer(
        blueprint,
        "tune",
        hyperparameters,
        compute_on(p.tune, settings.job, spot=settings.spot),
        stopping_condition=stopping_condition(settings),
        output_data_config=OutputDataConfig(s3_output_path=blueprint.uri(TUNING)),
        checkpoint_config=checkpoints if settings.spot else None,
    )


def _interval(searched: Range) -> ContinuousParameter:
    return ContinuousParameter(searched.low, searched.high, scaling_type=searched.scaling)
