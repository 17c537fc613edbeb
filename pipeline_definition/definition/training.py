"""The steps that train: Tune (a small search, judged by the validation loss), Train, and the optional Throughput."""

from typing import Any

from sagemaker.core import shapes
from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter
from sagemaker.core.training.configs import CheckpointConfig, Compute, Networking, OutputDataConfig, StoppingCondition
from sagemaker.core.workflow.functions import Join
from sagemaker.mlops.workflow import ProcessingStep, TrainingStep, TuningStep
from sagemaker.train import ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner

from params import layout
from params.arguments import to_text
from params.layout import CHECKPOINT_DIR, CHECKPOINTS, TRAINING_METRICS, TUNING, VALIDATION_LOSS, metric_regex
from params.phases import TUNED, Phase
from params.programs import MONEY, TrainArguments
from params.stages import Job, Range, ThroughputStep, TrainStep, TuneStep
from pipeline_definition.definition.blueprint import Blueprint, program_values, size_folder
from pipeline_definition.definition.data import output_uri
from pipeline_definition.definition.parameters import Hosts

# Of Throughput: where a training resumes, what it may cost, and what is fetched for it; nothing is trained there.
UNMEASURED = (*MONEY, "checkpoints_uri", "shards_uri", "warm_latents")
# A trial reads too little to have everything fetched for it.
WHOLE_DATA = ("warm_latents",)
# A trial that a broken host ended would be left out of the search in silence, and Train would learn at another rate.
TRIES_ON_OTHER_HOSTS = 3


def train_step(
    blueprint: Blueprint, phase: Phase, encode: ProcessingStep, tune: TuningStep, former: TrainingStep | None = None
) -> TrainingStep:
    """Return the step that trains a phase with what Tune found, a later one from the model of the `former`."""
    p, settings = blueprint.parameters, phase.train
    own = p.of_phase(phase)
    best = tune.properties.BestTrainingJob.TunedHyperParameters
    hyperparameters = {
        **program_values(settings, TrainArguments),
        "training_samples": own.training_samples.to_string(),
        "global_batch_size": own.global_batch_size.to_string(),
        "checkpoints_uri": blueprint.checkpoints_uri(phase),
        "budget_usd": p.budget.to_string(),
        "other_steps_usd": own.other_steps.to_string(),
        "instance_hour_usd": own.training_price.to_string(),
        **({"shards_uri": blueprint.uri(layout.SHARDS)} if p.encoders else {}),
        **latents_address(blueprint, encode),
        **{name: best[name] for name in phase.tuned},
    }
    if "learning_rate" in phase.tuned:
        hyperparameters["learning_rate_batch_size"] = blueprint.settings.tune.global_batch_size or (
            0 if own.global_batch_size is p.global_batch_size else p.global_batch_size.to_string()
        )
    model_trainer = trainer(
        blueprint,
        phase.train_name.lower(),
        hyperparameters,
        compute_on(own.training, settings.job, spot=settings.spot),
        # SageMaker's cache key leaves the hosts out: without this, a run on another count of them would be a cache hit.
        environment={
            "TRAINING_INSTANCE_COUNT": own.training.instance_count.to_string(),
            **({"ENCODERS_INSTANCE_COUNT": p.encoders.instance_count.to_string()} if p.encoders else {}),
        },
        stopping_condition=stopping_condition(settings),
        output_data_config=OutputDataConfig(s3_output_path=blueprint.uri(layout.MODEL)),
        checkpoint_config=CheckpointConfig(s3_uri=blueprint.checkpoints_uri(phase), local_path=layout.CHECKPOINT_DIR),
    ).with_metric_definitions(metric_definitions(online=p.encoders is not None))
    return TrainingStep(
        name=phase.train_name,
        description="DDP through torchrun; the same model on any number of GPUs",
        step_args=model_trainer.train(input_data_config=channels(blueprint, phase, encode, former, p.encoders)),
        depends_on=[encode],
        **blueprint.job_options,
    )


def throughput_step(blueprint: Blueprint, settings: ThroughputStep, encode: ProcessingStep) -> TrainingStep:
    """Return the optional step that measures speed and memory of the first phase's training, into throughput.json."""
    phase = blueprint.settings.phases[0]
    hosts = blueprint.parameters.of_phase(phase).training
    values = program_values(phase.train, TrainArguments)
    hyperparameters = {
        **{name: value for name, value in values.items() if name not in UNMEASURED},
        **latents_address(blueprint, encode),
        "throughput_micro_batch_sizes": settings.micro_batch_sizes,
        "throughput_s": settings.seconds_per_size,
    }
    model_trainer = trainer(
        blueprint,
        layout.THROUGHPUT_STEP.lower(),
        hyperparameters,
        compute_on(hosts, phase.train.job),
        # As in Train: SageMaker's cache key leaves the hosts out.
        environment={"TRAINING_INSTANCE_COUNT": hosts.instance_count.to_string()},
        stopping_condition=StoppingCondition(max_runtime_in_seconds=settings.max_runtime_s),
        output_data_config=OutputDataConfig(s3_output_path=blueprint.uri(layout.TUNING)),
    ).with_metric_definitions(metric_definitions())
    return TrainingStep(
        name=layout.THROUGHPUT_STEP,
        description="Iterations/s, images/s, MFU and memory of Train's hosts at each micro-batch size",
        step_args=model_trainer.train(input_data_config=channels(blueprint, phase, encode)),
        depends_on=[encode],
        **blueprint.job_options,
    )


def trainer(
    blueprint: Blueprint, name: str, hyperparameters: dict[str, Any], compute: Compute, **options: Any
) -> ModelTrainer:
    """Return what runs the training image's own entry point, which starts torchrun itself."""
    plain = (str, int, float, bool, tuple)
    return ModelTrainer(
        sagemaker_session=blueprint.session,
        role=blueprint.settings.account.role_arn,
        training_image=blueprint.parameters.training_image,
        base_job_name=name,
        hyperparameters={k: to_text(v) if isinstance(v, plain) else v for k, v in hyperparameters.items() if v != ()},
        compute=compute,
        networking=blueprint.network(Networking),
        **options,
    )


def compute_on(hosts: Hosts, job: Job, spot: bool = False) -> Compute:
    """Return the hosts of a training job; spot cannot be a pipeline variable, so the parameter set decides it."""
    options: dict[str, Any] = {"enable_managed_spot_training": True} if spot else {}
    return Compute(
        instance_type=hosts.instance_type,
        instance_count=hosts.instance_count,
        volume_size_in_gb=job.volume_size_gb,
        **options,
    )


def stopping_condition(settings: TrainStep | TuneStep) -> StoppingCondition:
    """Return the job's time limit, and with spot also how long to wait for instances."""
    limit_s = settings.job.max_runtime_s
    wait = {"max_wait_time_in_seconds": max(settings.max_wait_s, limit_s)} if settings.spot else {}
    return StoppingCondition(max_runtime_in_seconds=limit_s, **wait)


def channels(
    blueprint: Blueprint,
    phase: Phase,
    encode: ProcessingStep,
    former: TrainingStep | None = None,
    encoders: Hosts | None = None,
) -> list[shapes.Channel]:
    """Return the channels of a training job: latents, pretrained parts, and the former phase's model, if any.

    Where the loader itself reads S3, the latents have no channel. Encoders need the pretrained parts alone. SageMaker
    wants all channels in groups or none, and a file system cannot be in one: with it every host gets every channel.
    """
    p, made = blueprint.parameters, list[shapes.Channel]()
    if blueprint.settings.file_system.kind == "fsx":
        lustre = shapes.FileSystemDataSource(
            file_system_id=p.fsx_id,
            file_system_type="FSxLustre",
            file_system_access_mode="ro",
            directory_path=Join(on="/", values=[p.fsx_path, p.dataset, size_folder(phase)]),
        )
        source = shapes.DataSource(file_system_data_source=lustre)
        made.append(shapes.Channel(channel_name=layout.LATENTS_CHANNEL, input_mode="File", data_source=source))
    elif not reads_s3_itself(blueprint):
        made.append(s3_channel(layout.LATENTS_CHANNEL, output_uri(encode, layout.LATENTS), "FastFile"))
    made.append(s3_channel(layout.PRETRAINED_CHANNEL, p.pretrained, "File"))
    if former is not None:
        uri = former.properties.ModelArtifacts.S3ModelArtifacts
        made.append(s3_channel(layout.INITIAL_MODEL_CHANNEL, uri, "File"))
    if encoders is not None and blueprint.settings.file_system.kind != "fsx":
        for channel in made:
            both = channel.channel_name == layout.PRETRAINED_CHANNEL
            groups = [layout.TRAINERS_GROUP, layout.ENCODERS_GROUP] if both else [layout.TRAINERS_GROUP]
            channel.data_source.s3_data_source.instance_group_names = groups
    return made


def reads_s3_itself(blueprint: Blueprint) -> bool:
    """Return whether training reads blocks straight from S3. Encoders read their work from files of the channel."""
    return blueprint.settings.file_system.kind == "s3_direct" and blueprint.parameters.encoders is None


def latents_address(blueprint: Blueprint, encode: ProcessingStep) -> dict[str, Any]:
    """Return the hyperparameter in the place of latents' channel, or that it is S3, where no file is late."""
    if reads_s3_itself(blueprint):
        return {"latents_uri": output_uri(encode, layout.LATENTS)}
    return {} if blueprint.settings.file_system.kind == "fsx" else {"latents_wait_s": 0}


def s3_channel(name: str, uri: Any, input_mode: str) -> shapes.Channel:
    """Return an S3 prefix that every host sees whole."""
    source = shapes.S3DataSource(s3_data_type="S3Prefix", s3_uri=uri, s3_data_distribution_type="FullyReplicated")
    return shapes.Channel(
        channel_name=name, input_mode=input_mode, data_source=shapes.DataSource(s3_data_source=source)
    )


def metric_definitions(online: bool = False) -> list[shapes.MetricDefinition]:
    """Return the patterns with which SageMaker reads the training log."""
    names = (*layout.TRAINING_METRICS, *layout.CHECKPOINT_METRICS, *(layout.ONLINE_METRICS if online else ()))
    return [shapes.MetricDefinition(name=name, regex=layout.metric_regex(name)) for name in names]


class TrialTuner(HyperparameterTuner):  # type: ignore[misc]
    """A tuner that grants its trials what the SDK's own leaves out: other hosts for broken ones."""

    def _build_training_job_definition(self, inputs: Any) -> Any:
        definition = super()._build_training_job_definition(inputs)
        definition.retry_strategy = shapes.RetryStrategy(maximum_retry_attempts=TRIES_ON_OTHER_HOSTS)
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
