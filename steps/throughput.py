"""Measures the training speed of this machine, or this job's hosts, at each micro-batch size; recommends one.

    python -m steps throughput --throughput-micro-batch-sizes 16,32,64,128 [any flag of train]

Reads the channel `pretrained` and the latents of --latents-uri or of the channel `latents`. Without these it writes
random latents of --random-latents-px into the job's folder: the speed does not depend on the values. Prints a line for
each size and writes output/data/throughput.json. On SageMaker the same is a training job with the hyperparameter
throughput_micro_batch_sizes.
"""

from params.arguments import parse, to_flags
from params.layout import LATENTS_CHANNEL, MANIFEST_FILE, PRETRAINED_CHANNEL
from params.programs import ThroughputArguments, TrainArguments
from steps.container import Container
from steps.training.job import run_job
from steps.training.random_latents import write_random_latents


def main(argv: list[str]) -> int:
    """Measure; return the exit status."""
    container = Container()
    asked = parse(ThroughputArguments, argv, "throughput")
    arguments = TrainArguments.model_validate(asked.model_dump(include=set(TrainArguments.model_fields)))
    latents = container.channel_dir(LATENTS_CHANNEL)
    if not arguments.latents_uri and not (latents / MANIFEST_FILE).is_file():
        side = asked.random_latents_px
        count = max(arguments.throughput_micro_batch_sizes)
        write_random_latents(latents, container.channel_dir(PRETRAINED_CHANNEL), side, count)
    return run_job(arguments, to_flags(arguments.model_dump()), container)
