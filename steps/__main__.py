"""The entry point of every image and of the local engine.

    python -m steps PROGRAM [--flag value ...]

SageMaker calls a training image with `train` and a hosting image with `serve`; a processing job names its program.
On failure the reason is written to the job's failure file, which SageMaker reads.
"""

import importlib
import os
import sys
import traceback

from steps.cloud_faults import cloud_fault
from steps.container import Container
from steps.errors import StepError

PROGRAMS = {
    "download": "url table to WebDataset shards",
    "recaption": "stored pictures to long captions",
    "encode": "shards to latents and caption tokens",
    "train": "latents to a trained model",
    "throughput": "micro-batch sizes to iterations/s, and the best of them",
    "memory": "a model's configuration to the GPU memory that its training takes",
    "evaluate": "a trained model to metrics.json and a contact sheet",
    "export": "a trained model to a folder and a single file for other programs",
    "inspect": "where a picture comes from, by its manifest and its watermark",
    "score": "pictures and their captions to CLIP scores",
    "probe": "what this host, its network, storage and GPUs can do",
    "serve": "a trained model behind an HTTP endpoint",
}


def main(argv: list[str]) -> int:
    """Run one program; return its exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    program, *flags = argv
    if program not in PROGRAMS:
        print(f"unknown program {program!r}\n{usage()}", file=sys.stderr)
        return 2
    try:
        # Import only the chosen program: each has its own large dependencies.
        return int(importlib.import_module(f"steps.{program}").main(flags) or 0)
    except StepError as error:
        return _fail(str(error))
    except Exception as error:
        traceback.print_exc()
        return _fail(cloud_fault(error) or f"{type(error).__name__}: {error}")


def usage() -> str:
    lines = [f"  {name:10}{text}" for name, text in PROGRAMS.items()]
    return "\n".join(["usage: python -m steps PROGRAM [--help] [--flag value ...]", *lines])


def _fail(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr, flush=True)
    container = Container(os.environ)
    if container.failure_file.parent.is_dir():
        container.failure_file.write_text(reason[:1024], encoding="utf-8")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
