"""A training job's folders, and ways to run it."""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from tests.steps.training.processes import Running

ROOT = Path(__file__).parents[3]
SETTINGS: Mapping[str, object] = {
    "training_samples": 96,
    "global_batch_size": 8,
    "micro_batch_size": 4,
    "learning_rate": 1e-3,
    "warmup_samples": 16,
    "prediction_type": "v_prediction",
    "ema_decay": 0.9,
    "ema_reference_samples": 8,
    "precision": "float32",
    "validation_samples": 10,
    "validate_every_samples": 48,
    "save_every_samples": 24,
    "log_every_steps": 2,
    "collective_timeout_s": 60,
    "latents_wait_s": 0,
}


@dataclass
class Job:
    """A job whose hosts share the folder `base`."""

    base: Path
    settings: dict[str, object] = field(default_factory=dict)
    name: str = "job-1"

    @property
    def model_dir(self) -> Path:
        return self.base / "model"

    @property
    def checkpoints(self) -> list[Path]:
        return sorted(self.base.glob("checkpoints/*/samples-*"))

    @property
    def failure(self) -> str:
        return (self.base / "output" / "failure").read_text()

    def write(self, pretrained: Path, latents: Path) -> "Job":
        """Write what SageMaker gives a job."""
        config, data = self.base / "input" / "config", self.base / "input" / "data"
        for folder in (config, data, self.base / "output"):
            folder.mkdir(parents=True, exist_ok=True)
        texts = {name: str(value) for name, value in {**SETTINGS, **self.settings}.items()}
        (config / "hyperparameters.json").write_text(json.dumps(texts))
        for channel, source in (("pretrained", pretrained), ("latents", latents)):
            if not (data / channel).exists():
                (data / channel).symlink_to(source)
        return self

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "SAGEMAKER_BASE_DIR": str(self.base),
            "TRAINING_JOB_NAME": self.name,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **more,
        }

    def start(self, ranks: int = 1, **more: str) -> Running:
        """Start the ranks as torchrun would, or the only rank as it starts itself."""
        log_dir = self.base / "logs"
        for rank in range(ranks):
            (log_dir / f"rank-{rank}").mkdir(parents=True, exist_ok=True)
        if ranks == 1:
            return Running([self.environment(**more)], log_dir)
        port = str(free_port())
        return Running([self._rank_environment(rank, ranks, port, more) for rank in range(ranks)], log_dir)

    def run(self, ranks: int = 1, **more: str) -> Running:
        """Run to the end, which must be a good one."""
        running = self.start(ranks, **more)
        statuses = running.wait()
        assert statuses == [0] * ranks, running.output
        return running

    def unet(self) -> dict[str, Any]:
        weights: dict[str, Any] = load_file(self.model_dir / "unet" / "diffusion_pytorch_model.safetensors")
        return weights

    def log(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.model_dir / "training_log.jsonl").read_text().splitlines()]

    def lineage(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.model_dir / "lineage.json").read_text())
        return value

    def _rank_environment(self, rank: int, ranks: int, port: str, more: Mapping[str, str]) -> dict[str, str]:
        return self.environment(
            RANK=str(rank),
            WORLD_SIZE=str(ranks),
            LOCAL_RANK=str(rank),
            LOCAL_WORLD_SIZE=str(ranks),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            TORCHELASTIC_RUN_ID=self.name,
            TORCHELASTIC_ERROR_FILE=str(self.base / "logs" / f"rank-{rank}" / "error.json"),
            **more,
        )


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
