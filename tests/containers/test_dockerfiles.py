"""The Dockerfiles, locks and scripts: what they may and may not do, read rather than run."""

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from params.layout import ENTRY_POINT

CONTAINERS = Path("containers")
IMAGES = ("data", "training", "inference")
# A Deep Learning Container: by tag, or by digest.
DLC = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/pytorch(:2\.13-[\w.-]+|@sha256:[0-9a-f]{64})")


def instructions(image: str) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions as (name, rest), continued lines joined, comments left out."""
    text = (CONTAINERS / f"{image}.Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def locked(image: str) -> dict[str, str]:
    text = (CONTAINERS / f"{image}.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][\w.-]*(?:\[[\w,-]+\])?)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("image", IMAGES)
def test_hadolint_finds_nothing(image: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, CONTAINERS / f"{image}.Dockerfile"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "script", [CONTAINERS / "build.sh", CONTAINERS / "lock.sh", Path("install.sh"), Path(".ci/run")], ids=str
)
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("shellcheck has no package for this machine")
    result = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_params_and_steps_and_nothing_else(image: str) -> None:
    copied = [rest for name, rest in instructions(image) if name in ("COPY", "ADD")]
    assert copied == ["params/ params/", "steps/ steps/"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_the_one_entry_point(image: str) -> None:
    entry_points = [json.loads(rest) for name, rest in instructions(image) if name == "ENTRYPOINT"]
    assert entry_points == [list(ENTRY_POINT)]
    assert not [rest for name, rest in instructions(image) if name == "CMD"]


@pytest.mark.parametrize("image", IMAGES)
def test_the_base_is_an_argument_and_pinned(image: str) -> None:
    first, second = instructions(image)[:2]
    assert second == ("FROM", "${BASE_IMAGE}")
    name, _, default = first[1].partition("=")
    assert (first[0], name) == ("ARG", "BASE_IMAGE")
    assert DLC.fullmatch(default)
    assert len([name for name, _ in instructions(image) if name == "FROM"]) == 1


@pytest.mark.parametrize("image", IMAGES)
def test_packages_come_from_the_lock_by_hash_and_leave_no_cache(image: str) -> None:
    installs = [rest for name, rest in instructions(image) if name == "RUN" and "pip" in rest]
    assert len(installs) == 1
    for flag in ("--no-cache-dir", "--require-hashes", "--no-deps", f"--requirement /tmp/{image}.lock"):
        assert flag in installs[0]
    assert installs[0].startswith(f"--mount=type=bind,source={image}.lock,")
    everything = " ".join(rest for _, rest in instructions(image))
    assert not re.search(r"\b(curl|wget|apt-get|dnf|yum|git clone)\b|https?://", everything)


@pytest.mark.parametrize("image", IMAGES)
def test_the_user_is_an_argument_and_root_only_because_sagemaker_says_so(image: str) -> None:
    names = instructions(image)
    assert ("ARG", "RUN_AS=root") in names
    users = [rest for name, rest in names if name == "USER"]
    assert users == ["${RUN_AS}"]
    # Nothing is installed or copied as anybody else, so the user cannot change the program.
    assert max(i for i, (name, _) in enumerate(names) if name == "COPY") < names.index(("USER", "${RUN_AS}"))


def test_the_endpoints_image_ends_without_a_shell() -> None:
    names = instructions("inference")
    last = [rest for name, rest in names if name == "RUN"][-1]
    # A list, not a line for a shell; test_podman.py looks for what is left.
    program, flag, code = json.loads(last)
    assert (program, flag) == ("python", "-c")
    assert {"'sh'", "'bash'", "'dash'", "'busybox'"} <= set(re.findall(r"'\w+'", code))
    compile(code, "RUN", "exec")
    assert max(i for i, (name, _) in enumerate(names) if name == "RUN") < names.index(("USER", "${RUN_AS}"))


@pytest.mark.parametrize("lock", [*sorted(CONTAINERS.glob("*.lock")), *sorted(Path().glob("*.lock"))], ids=str)
def test_every_package_of_a_lock_has_hashes(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    for block in re.split(r"\n(?=\S)", text):
        if "==" in block:
            assert "--hash=sha256:" in block, block.splitlines()[0]
    assert "://" not in text


def test_the_cpu_build_of_torch_is_the_one_that_the_script_knows() -> None:
    lock = Path("requirements.lock").read_text(encoding="utf-8")
    block = next(block for block in re.split(r"\n(?=\S)", lock) if block.startswith("torch==") and "+cpu" in block)
    script = (CONTAINERS / "lock.sh").read_text(encoding="utf-8")
    assert re.findall(r"sha256:(\w{64})", block) == re.findall(r"sha256:(\w{64})", script) != []


def test_make_installs_nothing_without_its_hash() -> None:
    makefile = [line for line in Path("Makefile").read_text(encoding="utf-8").splitlines() if " pip install " in line]
    assert makefile and all("--require-hashes" in line for line in makefile)
    script = Path("install.sh").read_text(encoding="utf-8").splitlines()
    installs = [
        line for line in script if re.search(r"^\s*(if .*)?(install|with_uv|with_pip) ", line) and "()" not in line
    ]
    # All but the last, which is this checkout itself.
    assert installs[-1].endswith("--no-build-isolation --editable .")
    assert len(installs) > 4 and all("--require-hashes" in line for line in installs[:-1])


@pytest.mark.parametrize("image", IMAGES)
def test_torch_comes_from_the_base_and_the_sdk_from_nowhere(image: str) -> None:
    packages = locked(image)
    assert packages
    # sagemaker-mlflow signs requests to SageMaker's MLflow, and no more.
    others = r"(torch|torchvision|triton|nvidia-.*|sagemaker(?!-mlflow$).*|dataclasses)$"
    unwanted = [name for name in packages if re.match(others, name)]
    assert unwanted == []


@pytest.mark.parametrize("image", ["training", "inference"])
def test_the_base_has_the_torch_that_everything_was_tested_with(image: str) -> None:
    asked = [rest for name, rest in instructions(image) if name == "ARG" and rest.startswith("TORCH_VERSION=")]
    assert asked == [f"TORCH_VERSION={_requirement('training', 'torch')}"]
    assert [rest for name, rest in instructions(image) if name == "RUN" and "torch.__version__" in rest]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_the_versions_that_the_tests_ran_with(image: str) -> None:
    tested = dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", Path("requirements.lock").read_text(), re.MULTILINE))
    tested["torch"] = tested["torch"].partition("+")[0]
    different = {name: (version, tested[name]) for name, version in locked(image).items() if name in tested}
    assert {name: pair for name, pair in different.items() if pair[0] != pair[1]} == {}


@pytest.mark.parametrize(
    ("image", "needed"),
    [
        ("data", {"img2dataset", "s3fs", "pyarrow", "pillow", "pydantic", "pyyaml"}),
        ("training", {"ray", "s3fs", "diffusers", "transformers", "accelerate", "torchmetrics", "safetensors"}),
        ("inference", {"diffusers", "transformers", "fastapi", "uvicorn", "prometheus-client", "safetensors"}),
    ],
)
def test_an_image_has_what_its_programs_import(image: str, needed: set[str]) -> None:
    assert needed <= {re.sub(r"\[.*", "", name) for name in locked(image)}


def _requirement(extra: str, package: str) -> str:
    setup = configparser.ConfigParser()
    setup.read("setup.cfg")
    lines = setup["options.extras_require"][extra].split()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))
