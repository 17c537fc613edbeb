"""Latents to a trained model, on every GPU of every host of the job.

    python -m steps train                                  # as SageMaker calls it: settings from hyperparameters.json
    python -m steps train --training-samples 6400 ...      # or from flags

Reads the channels `latents` (manifest.json, index.arrow, shards), `pretrained` (a diffusers folder) and, in a second
phase, `initial_model` (the first one's model.tar.gz), and the checkpoints of an unfinished training of the same
settings. With --shards-uri a second instance group encodes pictures meanwhile. Writes checkpoints to
checkpoints/<digest>/ and, at the end, the model: the folder of a pipeline of diffusers with lineage.json and
training_log.jsonl. Tuning trials run the same.
The process starts one rank for each GPU through torchrun; a single rank runs in the process itself.
"""

from params.arguments import parse
from params.programs import TrainArguments
from steps.container import Container
from steps.training.job import hyperparameters, run_job


def main(argv: list[str]) -> int:
    """Run the job, or one rank of it where torchrun started this process; return the exit status."""
    container = Container()
    arguments = parse(TrainArguments, argv, "train") if argv else hyperparameters(container)
    return run_job(arguments, argv, container)
