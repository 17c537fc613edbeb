"""Where the local control plane keeps its state and how it runs jobs."""

import fnmatch
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from params.layout import ENTRY_POINT
from pipeline_definition.local.base_dir import in_base_dir
from pipeline_definition.local.container_engine import ContainerEngine, Program
from pipeline_definition.local.errors import DefinitionError

REGION = "us-east-1"
ACCOUNT = "123456789012"
HOST = "127.0.0.1"
# moto knows its default account by any key; these reach no real account.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
# Keys by which the jobs' role, and the services themselves, are told from the operator.
ROLE_KEY, SERVICE_KEY = "role", "service"
SOURCE_DIR = Path(__file__).resolve().parents[2]
"""The repository's root: on the PYTHONPATH of whatever is started."""
LOG_EVERY_S = 1.0
"""How often new log lines are sent to CloudWatch Logs."""
PYTHON_NAMES = ("python", "python3")
PROCESS = "process"
HEALTH_PATH = "/_local/health"
# The three of containers/build.sh, in any registry and of any project; AWS's own frameworks end alike.
_FRAMEWORKS = "huggingface|pytorch|tensorflow|mxnet|djl|sagemaker"
_OWN_IMAGE = re.compile(rf"(^|/)(?!{_FRAMEWORKS})[\w.-]+-(data|training|inference)([:@]|$)")
# The operation that turns the switches of `local.cloud:`.
SET_CLOUD = "Local.SetCloud"


@dataclass(frozen=True)
class LocalSettings:
    state: Path
    """Everything that outlives the process: objects, records, journals, caches, job folders. Can be deleted."""
    runs: Path
    """A folder for each execution: definition, parameters, journal, logs."""
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Image URI pattern (as for file names) to the command line of its entry point, the first that matches."""
    backend: str = PROCESS
    """How jobs and endpoints run: `process`, `docker` or `podman`."""
    engine: ContainerEngine | None = None
    """Runs them in their images; None: they are processes of this Python."""
    grace_s: float = 10.0
    """From SIGTERM to SIGKILL (SageMaker gives 120 s)."""
    sync_every_s: float = 2.0
    """How often checkpoints and continuous outputs are copied to S3."""

    def __post_init__(self) -> None:
        """Make the folders absolute: a job runs in its own folder, where a relative path would lead elsewhere."""
        object.__setattr__(self, "state", self.state.resolve())
        object.__setattr__(self, "runs", self.runs.resolve())

    def command(self, program: Program, environment: Mapping[str, str], folder: Path, mark: str) -> tuple[str, ...]:
        """Return the command line of a program: in its image, or as a process of this Python."""
        if self.engine is None:
            known = [argv for pattern, argv in self.images.items() if fnmatch.fnmatchcase(program.image, pattern)]
            if not program.entry_point:
                self.refuse_image(program.image)
            first, *rest = program.entry_point or (*known, ENTRY_POINT)[0]
            argv = (sys.executable if first in PYTHON_NAMES else first, *rest, *program.arguments)
            return argv if (first, *rest)[:3] == ENTRY_POINT else in_base_dir(argv, folder)
        # Channels of a file system, and objects in fast file mode, are links that lead out of the job's folder.
        shared = [folder for folder in (self.folder("fsx"), self.folder("s3")) if folder.is_dir()]
        return self.engine.run(program, environment, folder, mark, shared)

    def refuse_image(self, image: str) -> None:
        """Raise DefinitionError for a foreign image: what it runs is not known here."""
        is_known = any(fnmatch.fnmatchcase(image, pattern) for pattern in self.images) or _OWN_IMAGE.search(image)
        if self.engine is None and image and not is_known:
            raise DefinitionError(
                f"image {image!r} is not one of this project's, and a process cannot run it: name its entry point, in "
                "the request or by --images, or run jobs in their images (--backend docker or podman)"
            )

    @property
    def mark(self) -> str:
        """How the marks of all processes of this state folder begin."""
        return hashlib.sha256(str(self.state.resolve()).encode()).hexdigest()[:12] + "/"

    def folder(self, name: Literal["s3", "fsx", "jobs", "endpoints"]) -> Path:
        """Return a folder of the state: of buckets, of file systems, or where jobs and endpoints work."""
        return self.state / name
