"""install.sh and the locks: which tool, which build of torch, every package by its hash, and what a mistake says."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.markers import Marker

LOCK, CUDA_LOCK = Path("requirements.lock"), Path("requirements.cuda.lock")
# Writes down how it was called, and fails where its words match REFUSED.
TOOL = """#!/bin/bash
words="$(basename "$0") $*"
for word in "$@"; do [[ $word == */torch.lock ]] && words="$words [$(head -qn 1 "$word" | cut -d' ' -f1)]"; done
echo "$words" >>"$LOG"
if [[ $1 == -c && $2 == *sys.platform* ]]; then echo "$MACHINE"; exit; fi
if [[ $words == *"-m venv"* ]]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi
if [[ $words == *"uv venv"* ]]; then mkdir -p .venv/bin && cp "$(dirname "$0")/python3.11" .venv/bin/python; fi
if [[ -n $REFUSED && $words =~ $REFUSED ]]; then echo "error: $REASON" >&2; exit 1; fi
"""
Install = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Return install.sh with tools that only write down: (status, calls, what it said)."""
    for name in ("install.sh", LOCK.name, CUDA_LOCK.name):
        shutil.copy(name, tmp_path)

    def run(*tools: str, machine: str = "linux x86_64 11", **environment: str) -> tuple[int, list[str], str]:
        programs, log = tmp_path / "bin", tmp_path / "log"
        programs.mkdir()
        for name in tools:
            (programs / name).write_text(TOOL, encoding="utf-8")
            (programs / name).chmod(0o755)
        variables = {"PATH": f"{programs}:/usr/bin:/bin", "LOG": str(log), "MACHINE": machine, **environment}
        # By name: this machine has real ones.
        variables["PYTHON"] = next((name for name in tools if name.startswith("python")), str(tmp_path / "nothing"))
        done = subprocess.run(["bash", "install.sh"], cwd=tmp_path, env=variables, capture_output=True, text=True)
        calls = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return done.returncode, [call for call in calls if " -c " not in call], done.stderr

    return run


def torch_calls(calls: list[str]) -> list[str]:
    return [call for call in calls if "torch.lock" in call or CUDA_LOCK.name in call]


def test_pip_installs_everything_by_hash_where_there_is_no_uv(install: Install) -> None:
    status, calls, told = install("python3.11")
    assert (status, told) == (0, "")
    assert calls[0] == "python3.11 -m venv .venv"
    installs = [call for call in calls if " pip install " in call]
    assert all("--no-deps" in call for call in installs)
    assert ["--require-hashes" in call for call in installs] == [True, True, False]
    assert installs[2].endswith("--no-build-isolation --editable .")
    assert "[torch==2.13.0+cpu]" in installs[0]


def test_uv_is_taken_where_it_is_there_and_finds_pytorchs_index_itself(install: Install) -> None:
    status, calls, _told = install("uv", "python3.11")
    assert status == 0
    assert calls[0] == "uv venv --quiet --seed --allow-existing --python python3.11 .venv"
    assert all(call.startswith("uv pip install") for call in calls[1:])
    assert "--torch-backend cpu --require-hashes" in calls[1] and "[torch==2.13.0+cpu]" in calls[1]


def test_pip_is_asked_for_torch_where_uv_does_not_get_it(install: Install) -> None:
    status, calls, told = install("uv", "python3.11", REFUSED="torch-backend", REASON="no route to host")
    assert (status, told) == (0, "")
    assert [call.split()[0] for call in torch_calls(calls)] == ["uv", "python"]


def test_without_a_cpu_build_the_cuda_build_comes_with_its_size_told(install: Install) -> None:
    status, calls, told = install("python3.11", REFUSED="torch==2.13.0.cpu", REASON="No matching distribution found")
    assert status == 0
    assert torch_calls(calls)[-1].endswith(f"--require-hashes --requirement {CUDA_LOCK}")
    assert "error: No matching distribution found" in told
    assert "2.7 GB to download" in told


def test_a_build_with_another_hash_is_refused_and_nothing_else_is_tried(install: Install) -> None:
    reason = "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE"
    status, calls, told = install("python3.11", REFUSED="torch==2.13.0.cpu", REASON=reason)
    assert status == 1 and "do not use this index" in told
    assert len(torch_calls(calls)) == 1


@pytest.mark.parametrize("machine", ["linux x86_64 12", "linux x86_64 13", "linux aarch64 11"])
def test_a_machine_without_a_known_cpu_build_gets_the_other(install: Install, machine: str) -> None:
    _status, calls, told = install("python3.12", machine=machine)
    assert [CUDA_LOCK.name in call for call in torch_calls(calls)] == [True]
    assert "2.7 GB" in told


def test_a_mac_gets_its_own_build(install: Install) -> None:
    status, calls, told = install("python3.13", machine="darwin arm64 13")
    assert (status, told) == (0, "")
    assert len(torch_calls(calls)) == 1 and CUDA_LOCK.name not in torch_calls(calls)[0]


def test_a_missing_python_is_one_line_with_three_ways_to_get_it(install: Install) -> None:
    status, calls, told = install()
    assert (status, calls) == (1, [])
    assert told.count("\n") == 1
    assert all(way in told for way in ("uv python install", "apt install", "brew install", "make install PYTHON="))


# The lock, judged as pip and uv judge it: by its markers.
MACHINES = {
    "linux x86-64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "linux arm64": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macos arm64": {"sys_platform": "darwin", "platform_machine": "arm64"},
}
PYTHONS = ("3.11", "3.12", "3.13")


def listed(lock: Path, machine: str, python: str) -> dict[str, list[str]]:
    """Return the requirements that hold on a machine, with their hashes, by name."""
    environment = {**MACHINES[machine], "python_version": python, "python_full_version": f"{python}.1"}
    packages: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8")):
        requirement, _, marker = block.splitlines()[0].rstrip(" \\").partition(" ; ")
        if not marker or Marker(marker).evaluate(environment):
            assert requirement not in packages, f"{requirement} stands twice"
            packages[requirement] = re.findall(r"sha256:(\w{64})", block)
    return packages


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_gets_each_package_once_and_one_torch(machine: str, python: str) -> None:
    packages = listed(LOCK, machine, python)
    names = [requirement.partition("==")[0] for requirement in packages]
    assert len(set(names)) == len(names) > 250
    assert all(packages.values())
    torch = [requirement for requirement in packages if requirement.startswith("torch==")]
    if machine == "macos arm64":
        assert torch == ["torch==2.13.0"]
    elif (machine, python) == ("linux x86-64", "3.11"):
        assert torch == ["torch==2.13.0+cpu"]
    else:
        assert torch == []
        assert "torch==2.13.0" in listed(CUDA_LOCK, machine, python)


def test_the_lock_for_a_cpu_holds_nothing_of_cuda_and_the_other_nothing_else() -> None:
    of_cuda = re.compile(r"(nvidia-|cuda-|triton==|torch==)")
    names = re.findall(r"^[a-z0-9]\S+", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name in names if of_cuda.match(name)} == {"torch==2.13.0+cpu", "torch==2.13.0"}
    names = re.findall(r"^[a-z0-9]\S+", CUDA_LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert all(of_cuda.match(name) for name in names) and len(names) > 15


def test_the_package_asks_for_what_every_command_needs() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read("setup.cfg")

    def lines(text: str) -> set[str]:
        return {line for line in text.split("\n") if line}

    extras = {name: lines(text) for name, text in setup["options.extras_require"].items()}
    wanted = set().union(*(extras[name] for name in extras.keys() - {"heic", "jxl", "dev"}))
    assert wanted <= lines(setup["options"]["install_requires"])


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="the torch that pip is to find is Linux's")
def test_pip_takes_the_locks_without_any_configuration_of_this_machine(tmp_path: Path) -> None:
    """A small package and torch itself, by hash, from the package index alone: needs a network."""
    small = next(block for block in re.split(r"\n(?=\S)", LOCK.read_text()) if block.startswith("absl-py=="))
    torch = next(block for block in re.split(r"\n(?=\S)", CUDA_LOCK.read_text()) if block.startswith("torch=="))
    (tmp_path / "some.lock").write_text(f"{small.rstrip()}\n{torch}\n", encoding="utf-8")
    kept = {name: os.environ[name] for name in ("PIP_CERT", "SSL_CERT_FILE", "HTTPS_PROXY") if name in os.environ}
    environment = {**kept, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps"]
    command += ["--require-hashes", "--requirement", "some.lock"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if "Failed to establish" in done.stderr or "No matching distribution found for absl-py" in done.stderr:
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert "torch-2.13.0" in done.stdout and "+cpu" not in done.stdout
