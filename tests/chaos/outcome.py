"""What a run leaves behind, as digests: two runs are the same when these are."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import LocalPipeline

BUCKET = "sd-pipeline-tiny"


@dataclass(frozen=True)
class Outcome:
    """Digests of every byte that is promised to be the same, however the run was disturbed."""

    shards: Mapping[str, str]
    latents: Mapping[str, str]
    reference: Mapping[str, str]
    weights: Mapping[str, str]
    """By tensor of the trained UNet."""
    losses: tuple[tuple[int, float], ...]
    """(samples seen, training loss) for each line of the log."""
    metrics: Mapping[str, Any]
    seconds: float = field(compare=False)
    """How long its steps ran."""

    @classmethod
    def of(cls, pipeline: LocalPipeline, dataset: str, execution_id: str) -> "Outcome":
        """Read the outcome of a run that succeeded; its control plane is up."""
        bucket = pipeline.state / "s3" / BUCKET
        metrics = json.loads((pipeline.runs / execution_id / "artifacts" / "metrics.json").read_text())
        log = [line for line in pipeline.training_log(execution_id) if "training_loss" in line]
        return cls(
            shards=_digests(bucket / "shards" / dataset, "*.tar"),
            latents=_digests(bucket / "latents" / dataset, "**/*.tar"),
            reference=_digests(bucket / "reference" / dataset, "**/*.tar"),
            weights={
                name: _digest(tensor.numpy().tobytes()) for name, tensor in pipeline.weights(execution_id).items()
            },
            losses=tuple((int(line["seen_samples"]), float(line["training_loss"])) for line in log),
            metrics=metrics["metrics"],
            seconds=sum(step["seconds"] for step in pipeline.summary(execution_id)["steps"].values()),
        )


def _digests(folder: Path, pattern: str) -> dict[str, str]:
    return {str(path.relative_to(folder)): _digest(path.read_bytes()) for path in sorted(folder.glob(pattern))}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
