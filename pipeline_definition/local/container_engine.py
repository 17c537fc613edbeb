"""Jobs and endpoints in their own images, by docker or podman, instead of as processes of this Python.

Reads the images that containers/build.sh built; starts containers, and removes those whose client was killed. A
container sees what a process sees: its folder at /opt/ml, this machine's network, and the shared file systems.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from params.layout import BASE_DIR, BASE_DIR_VARIABLE
from pipeline_definition.errors import OperatorError
from pipeline_definition.local.processes import JOB_MARK

ENGINES: Final = ("docker", "podman")
# Limits, mounts and other properties of one machine come from its environment, as for containers/build.sh.
ENGINE_VARIABLE: Final = "CONTAINER_ENGINE"
ARGUMENTS_VARIABLE: Final = "RUN_ARGUMENTS"
LABEL: Final = "sd-pipeline.job"
# torch and Ray share tensors in memory; an engine gives 64 MB.
SHARED_MEMORY: Final = "2g"
# The image's own: where its programs, modules and home are.
OF_THE_IMAGE: Final = frozenset(
    {BASE_DIR_VARIABLE, JOB_MARK, "PATH", "PYTHONPATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH"}
)


class ContainerEngineError(OperatorError):
    """Containers cannot be run here: the message says what is missing and how to fix it."""

    exit_status = 2


@dataclass(frozen=True)
class Program:
    image: str
    entry_point: tuple[str, ...]
    """Empty: the image's own."""
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, image: str, specification: Mapping[str, Any]) -> Self:
        """Return what an AppSpecification or AlgorithmSpecification runs."""
        words = (specification.get(name) or () for name in ("ContainerEntrypoint", "ContainerArguments"))
        return cls(image, *map(tuple, words))


@dataclass(frozen=True)
class ContainerEngine:
    command: tuple[str, ...]
    """The engine and options of its own, such as `podman --root DIR`."""
    arguments: tuple[str, ...] = ()
    """Further arguments of every `run`."""

    @classmethod
    def find(cls, backend: str, environment: Mapping[str, str]) -> Self:
        """Return the engine of this name; ContainerEngineError where it is not installed.

        CONTAINER_ENGINE names another command for it, RUN_ARGUMENTS further arguments of `run`.
        """
        command = tuple(shlex.split(environment.get(ENGINE_VARIABLE, "") or backend))
        if shutil.which(command[0], path=environment.get("PATH")) is None:
            raise ContainerEngineError(
                f"--backend {backend}: {command[0]} is not installed; --backend process needs none"
            )
        return cls(command, tuple(shlex.split(environment.get(ARGUMENTS_VARIABLE, ""))))

    def require(self, images: Mapping[str, str]) -> None:
        """Check that images, by pipeline parameter, are on this machine; ContainerEngineError names the parameter."""
        for name, image in images.items():
            done = self._ask("image", "inspect", image)
            if done.returncode:
                *_, reason = ["", *done.stderr.strip().splitlines()]
                raise ContainerEngineError(
                    f"{name}: {self.command[0]} has no image {image} ({reason}); "
                    "`containers/build.sh` builds the three and prints their names for --set"
                )

    def run(
        self, program: Program, environment: Mapping[str, str], folder: Path, mark: str, shared: Iterable[Path] = ()
    ) -> tuple[str, ...]:
        entry = ["--entrypoint", program.entry_point[0]] if program.entry_point else []
        mounts = [f"{folder.resolve()}:{BASE_DIR}:rw", *(f"{path.resolve()}:{path.resolve()}:ro" for path in shared)]
        passed = {name: value for name, value in environment.items() if name not in OF_THE_IMAGE} | {"HOME": "/tmp"}
        return (
            *(*self.command, "run", "--rm", "--pull", "never", "--network", "host", "--shm-size", SHARED_MEMORY),
            # The user who runs this owns what the container writes; nothing in the images needs root.
            *("--user", f"{os.getuid()}:{os.getgid()}", "--label", f"{LABEL}={mark}"),
            *(word for mount in mounts for word in ("--volume", mount)),
            *(word for name, value in passed.items() for word in ("--env", f"{name}={value}")),
            *(*self.arguments, *entry, program.image, *program.entry_point[1:], *program.arguments),
        )

    def remove(self, mark: str) -> int:
        """Remove the containers whose mark begins so, running ones too; return how many.

        A client that was killed leaves its own behind. ContainerEngineError where the engine fails.
        """
        # As docker writes labels, a=b,c=d, and podman, map[a:b c:d]; podman before 4.9 has no `.Label "x"`.
        own = re.compile(rf"[\s,\[]{re.escape(LABEL)}[=:]{re.escape(mark)}")
        listed = self._do("ps", "--all", "--filter", f"label={LABEL}", "--format", "{{.ID}} {{.Labels}}")
        containers = [line.split()[0] for line in listed.splitlines() if own.search(line)]
        if containers:
            self._do("rm", "--force", *containers)
        return len(containers)

    def _do(self, *words: str) -> str:
        """Run the engine; return what it says, or raise ContainerEngineError with its own words."""
        done = self._ask(*words)
        if done.returncode:
            raise ContainerEngineError(f"{self.command[0]} {words[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *words], capture_output=True, text=True, check=False)
