"""Jobs in their images: the command lines that docker or podman gets, with an engine that only writes down."""

import json
import os
import stat
from pathlib import Path

import pytest

from params.cloud import Cloud
from pipeline_definition.local.container_engine import ContainerEngine, ContainerEngineError, Program
from pipeline_definition.local.environment import job_environment
from pipeline_definition.local.errors import DefinitionError
from pipeline_definition.local.settings import LocalSettings

ENGINE = """#!/bin/sh
echo "$@" >> "$LOG"
case "$1 $2" in
    "image inspect") [ "$3" = known:1 ] || { echo "no such image" >&2; exit 1; } ;;
    "ps --all") printf '%s\\n' "aaa a=b,sd-pipeline.job=state/job-1/" "bbb map[sd-pipeline.job:state/job-10/ x:y]" \\
        "ccc sd-pipeline.job=other/job-1/" ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContainerEngine:
    program = tmp_path / "docker"
    program.write_text(ENGINE, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return ContainerEngine((str(program),), ("--ulimit", "nofile=1024"))


def asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text(encoding="utf-8").splitlines()


def command(settings: LocalSettings, program: Program, tmp_path: Path) -> tuple[str, ...]:
    own = {"TRAINING_JOB_NAME": "train"}
    environment = job_environment("http://127.0.0.1:1234", tmp_path / "algo-1", 1, own, Cloud())
    return settings.command(program, environment, tmp_path / "algo-1", "state/job-1/")


def test_a_container_sees_its_folder_the_network_and_the_file_systems(engine: ContainerEngine, tmp_path: Path) -> None:
    settings = LocalSettings(tmp_path / "state", tmp_path / "runs", engine=engine)
    settings.folder("fsx").mkdir(parents=True)
    argv = command(settings, Program("train:1", (), ("train",)), tmp_path)
    assert argv[0] == engine.command[0]
    assert argv[-2:] == ("train:1", "train")
    options = " ".join(argv[1:-2])
    assert options.startswith("run --rm --pull never --network host")
    assert f"--user {os.getuid()}:{os.getgid()}" in options
    assert "--label sd-pipeline.job=state/job-1/" in options
    assert f"--volume {tmp_path / 'algo-1'}:/opt/ml:rw" in options
    shared = settings.folder("fsx")
    assert f"--volume {shared}:{shared}:ro" in options
    assert "--env AWS_ENDPOINT_URL=http://127.0.0.1:1234" in options
    assert "--env TRAINING_JOB_NAME=train" in options
    assert "--env HOME=/tmp" in options
    # Where this machine's Python and its modules are is no business of the image's.
    for own in ("PATH=", "PYTHONPATH=", "SAGEMAKER_BASE_DIR="):
        assert f"--env {own}" not in options
    assert "--entrypoint" not in options
    assert options.endswith("--ulimit nofile=1024")


def test_a_jobs_own_entry_point_takes_the_place_of_the_images(engine: ContainerEngine, tmp_path: Path) -> None:
    settings = LocalSettings(tmp_path / "state", tmp_path / "runs", engine=engine)
    program = Program("data:1", ("python", "-m", "steps", "download"), ("--threads", "4"))
    argv = command(settings, program, tmp_path)
    assert argv[-8:] == ("--entrypoint", "python", "data:1", "-m", "steps", "download", "--threads", "4")


def test_without_an_engine_the_images_command_line_is_run_by_this_python(tmp_path: Path) -> None:
    import sys

    images = {"other/*": ("python", "other.py")}
    settings = LocalSettings(tmp_path, tmp_path, images)
    own = Program("any:1", ("python", "-m", "steps", "encode"), ("--batch-size", "8"))
    assert command(settings, own, tmp_path) == (sys.executable, *own.entry_point[1:], *own.arguments)
    train = command(settings, Program("other/train:1", (), ("train",)), tmp_path)
    assert train[-3:] == (sys.executable, "other.py", "train")
    with pytest.raises(DefinitionError, match=r"image 'foreign:1'.*--images.*--backend docker"):
        command(settings, Program("foreign:1", (), ("train",)), tmp_path)


def test_what_a_killed_client_left_is_removed_by_its_mark(engine: ContainerEngine, tmp_path: Path) -> None:
    assert engine.remove("state/job-1/") == 1
    assert asked(tmp_path)[-1] == "rm --force aaa"
    assert engine.remove("state/") == 2
    assert asked(tmp_path)[-1] == "rm --force aaa bbb"
    assert engine.remove("nothing/") == 0
    assert asked(tmp_path)[-1].startswith("ps ")


def test_an_engine_that_fails_is_reported_in_its_own_words(tmp_path: Path) -> None:
    broken = tmp_path / "podman"
    broken.write_text("#!/bin/sh\necho 'cannot connect' >&2\nexit 125\n")
    broken.chmod(0o755)
    with pytest.raises(ContainerEngineError, match="ps failed: cannot connect"):
        ContainerEngine((str(broken),)).remove("state/")


def test_an_image_that_is_not_there_is_named_with_the_fix(engine: ContainerEngine) -> None:
    engine.require({"DataImage": "known:1"})
    with pytest.raises(ContainerEngineError, match=r"TrainingImage: .* has no image unknown:1 \(no such image\)"):
        engine.require({"DataImage": "known:1", "TrainingImage": "unknown:1"})


def test_an_engine_is_found_by_name_or_by_what_the_environment_says() -> None:
    with pytest.raises(ContainerEngineError, match="docker is not installed; --backend process needs none"):
        ContainerEngine.find("docker", {"PATH": ""})
    found = ContainerEngine.find("podman", {"CONTAINER_ENGINE": "/bin/sh -e", "RUN_ARGUMENTS": "--ulimit 'a b'"})
    assert (found.command, found.arguments) == (("/bin/sh", "-e"), ("--ulimit", "a b"))


def test_the_control_plane_says_how_it_runs_jobs(tmp_path: Path) -> None:
    from pipeline_definition.local.state_lock import StateLock, announced

    lock = StateLock(tmp_path)
    lock.announce("http://127.0.0.1:1", tmp_path / "runs", "podman")
    assert json.loads((tmp_path / "control_plane.json").read_text())["backend"] == "podman"
    assert announced(tmp_path) is not None
    lock.close()
