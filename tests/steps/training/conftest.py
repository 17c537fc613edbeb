"""A random pipeline and random latents, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.steps.training.jobs import Job
from tests.steps.training.tiny_model import write_latents, write_pretrained

# How long an example takes says how busy the machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

MakeJob = Callable[..., Job]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pretrained(tmp_path_factory.mktemp("channels") / "pretrained")


@pytest.fixture(scope="session")
def latents(pretrained: Path) -> Path:
    return write_latents(pretrained.with_name("latents"), pretrained)


@pytest.fixture
def make_job(tmp_path: Path, pretrained: Path, latents: Path) -> MakeJob:
    def make(folder: str = "job", name: str = "job-1", **settings: object) -> Job:
        return Job(tmp_path / folder, dict(settings), name).write(pretrained, latents)

    return make
