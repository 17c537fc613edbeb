"""Where the local control plane keeps its state and how it runs jobs."""

from __future__ import annotations

import fnmatch
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from params.layout import ENTRY_POINT
from pipeline_definition.local.container_engine import ContainerEngine

REGION = "us-east-1"
ACCOUNT = "123456789012"
HOST = "127.0.0.1"
# moto knows its default account by any key; these reach no real account.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
# Keys by which the jobs' role, and the services themselves, are told from the operator.
ROLE_KEY, SERVICE_KEY = "role", "service"
PYTHON_NAMES = ("python", "python3")
PROCESS = "process"
HEALTH_PATH = "/_local/health"
# The operation that turns the switches of `local.cloud:`.
SET_CLOUD = "Local.SetCloud"


def this_python(argv: Sequence[str]) -> tuple[str, ...]:
    """Replace an image's `python` with the interpreter that runs the control plane."""
    return (sys.executable, *argv[1:]) if argv and argv[0] in PYTHON_NAMES else tuple(argv)


@dataclass(frozen=True)
class ImageEntryPoints:
    """The entry point of each image: what `docker run IMAGE` would run, before its arguments."""

    entry_points: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Image URI pattern (as for file names) to argv; the first that matches wins."""

    @classmethod
    def read(cls, path: Path) -> ImageEntryPoints:
        """Read `{"*/trainer:*": ["python", "-m", "steps"]}`."""
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls({pattern: tuple(argv) for pattern, argv in values.items()})

    def entry_point(self, image_uri: str) -> tuple[str, ...]:
        """Return the image's argv; images unknown here are this project's own."""
        for pattern, argv in self.entry_points.items():
            if fnmatch.fnmatchcase(image_uri, pattern):
                return this_python(argv)
        return this_python(ENTRY_POINT)


@dataclass(frozen=True)
class LocalSettings:
    """The control plane's own settings."""

    state: Path
    """Everything that outlives the process: objects, records, journals, caches, job folders. Can be deleted."""
    runs: Path
    """A folder for each execution: definition, parameters, journal, logs."""
    images: ImageEntryPoints = ImageEntryPoints()
    backend: str = PROCESS
    """How jobs and endpoints run: `process`, `docker` or `podman`."""
    engine: ContainerEngine | None = None
    """Runs them in their images; None: they are processes of this Python."""
    source_dir: Path = Path(__file__).resolve().parents[2]
    """On the jobs' PYTHONPATH: the repository's root."""
    grace_s: float = 10.0
    """From SIGTERM to SIGKILL (SageMaker gives 120 s)."""
    sync_every_s: float = 2.0
    """How often checkpoints and continuous outputs are copied to S3."""
    log_every_s: float = 1.0
    """How often new log lines are sent to CloudWatch Logs."""
    startup_timeout_s: float = 600.0
    """How long an endpoint may take until /ping answers, unless its configuration gives a limit."""

    def __post_init__(self) -> None:
        """Make the folders absolute: a job runs in its own folder, where a relative path would lead elsewhere."""
        object.__setattr__(self, "state", self.state.resolve())
        object.__setattr__(self, "runs", self.runs.resolve())

    @property
    def objects_dir(self) -> Path:
        """S3: one folder for each bucket."""
        return self.state / "s3"

    @property
    def jobs_dir(self) -> Path:
        """Working folders of running and failed jobs."""
        return self.state / "jobs"

    @property
    def endpoints_dir(self) -> Path:
        """Working folders of endpoints."""
        return self.state / "endpoints"

    @property
    def file_systems_dir(self) -> Path:
        """FSx: one folder for each file system."""
        return self.state / "fsx"
