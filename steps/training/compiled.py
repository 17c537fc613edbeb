"""What torch compiled, kept beside the checkpoints: a restarted job, and Train after Tune, need not compile it again.

Reads and writes <checkpoints>/compiled/, torch's own cache, which SageMaker copies to S3 and back with the checkpoints;
Train's first job also reads what Tune's trials left there, where trials have checkpoints (`tune.spot`). Torch takes
from it only what has the same code, shapes, version and device.

The cache is machine code, and pickles that torch itself loads: there is no form of it that is data alone. So it comes
only from the checkpoints of this data set, which the pipeline's role writes, and without `compile` nothing is read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import MutableMapping
from typing import Final

from params.layout import TUNING
from params.programs import TrainArguments
from params.s3 import join_uri
from steps.container import Container
from steps.data.storage import Storage

CACHE_VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"
FOLDER: Final = "compiled"


def keep_compiled(
    arguments: TrainArguments, container: Container, environment: MutableMapping[str, str] = os.environ
) -> None:
    """Have torch, in this process and in the ranks that it starts, compile into the checkpoints' volume."""
    if not arguments.compile:
        return
    folder = container.checkpoint_dir / FOLDER
    environment.setdefault(CACHE_VARIABLE, str(folder))
    if folder.exists() or not arguments.checkpoints_uri:
        return
    trials = join_uri(arguments.checkpoints_uri.rstrip("/").rpartition("/")[0], TUNING, FOLDER)
    try:
        Storage(trials).fetch(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{trials}: cannot be read ({' '.join(str(error).split())[:200]}); compiling anew", flush=True)
