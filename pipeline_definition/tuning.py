"""The Tune step: a small-scale search on a fixed sample budget, judged by the validation loss."""

from __future__ import annotations

from typing import Any

from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter
from sagemaker.core.training.configs import OutputDataConfig, StoppingCondition
from sagemaker.mlops.workflow import ProcessingStep, TuningStep
from sagemaker.train.tuner import HyperparameterTuner

from params.arguments import to_text
from params.layout import TRAINING_METRICS, VALIDATION_LOSS, metric_regex
from params.programs import TrainArguments
from params.stages import Range, TuneStep
from pipeline_definition.blueprint import Blueprint, program_values
from pipeline_definition.training import MONEY, TUNED, channels, compute_on, trainer


def tune_step(blueprint: Blueprint, encode: ProcessingStep) -> TuningStep:
    """Return the step whose best trial's hyperparameters Train takes."""
    settings = blueprint.settings.tune
    tuner = HyperparameterTuner(
        model_trainer=trial_trainer(blueprint),
        objective_metric_name=VALIDATION_LOSS,
        objective_type="Minimize",
        metric_definitions=[{"Name": name, "Regex": metric_regex(name)} for name in TRAINING_METRICS],
        hyperparameter_ranges=search_space(settings),
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
        cache_config=blueprint.cache,
        retry_policies=blueprint.job_retries,
    )


def trial_trainer(blueprint: Blueprint) -> Any:
    """Return the trainer of one trial: the training program with a small budget."""
    p, settings = blueprint.parameters, blueprint.settings.tune
    values = {name: value for name, value in program_values(blueprint.settings.train, TrainArguments).items()}
    budget = p.tune_samples.to_string()
    hyperparameters = {
        **{name: value for name, value in values.items() if name not in (*TUNED, *MONEY)},
        "training_samples": budget,
        "global_batch_size": p.global_batch_size.to_string(),
        "warmup_samples": settings.warmup_samples,
        # A trial is cheaper to run again than to checkpoint: validate and save at its end only.
        "validate_every_samples": budget,
        "save_every_samples": budget,
    }
    return trainer(
        blueprint,
        "tune",
        hyperparameters,
        compute_on(p.tune, settings.job),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=settings.job.max_runtime_s),
        output_data_config=OutputDataConfig(s3_output_path=blueprint.tuning_uri()),
    )


def search_space(settings: TuneStep) -> dict[str, Any]:
    """Return the ranges of the search."""
    return {
        "learning_rate": _continuous(settings.learning_rate),
        "micro_batch_size": CategoricalParameter([to_text(size) for size in settings.micro_batch_size]),
        "caption_dropout": _continuous(settings.caption_dropout),
    }


def _continuous(interval: Range) -> ContinuousParameter:
    return ContinuousParameter(interval.low, interval.high, scaling_type=interval.scaling)
