"""containers/build.sh: content tags, and what it asks of an engine, with an engine that only writes down."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ENGINE = """#!/bin/sh
echo "$@" >> "$LOG"
case $1 in build) for last; do :; done; (cd "$last" && find . -type f | sort) > "$LOG.context" ;; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what goes into images, to change."""
    for folder in ("containers", "params", "steps"):
        shutil.copytree(folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    engine = tmp_path / "bin" / "docker"
    engine.parent.mkdir()
    engine.write_text(ENGINE, encoding="utf-8")
    engine.chmod(0o755)
    return tmp_path


def build(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LOG": str(checkout / "log")}
    command = [str(checkout / "containers" / "build.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def tags(checkout: Path, *arguments: str) -> dict[str, str]:
    result = build(checkout, "--tags", *arguments)
    assert result.returncode == 0, result.stderr
    return dict(line.split("=") for line in result.stdout.splitlines())


def test_it_prints_what_set_takes(checkout: Path) -> None:
    found = tags(checkout)
    assert list(found) == ["DataImage", "TrainingImage", "InferenceImage"]
    assert all(re.fullmatch(r"sd-pipeline-[a-z]+:[0-9a-f]{16}", image) for image in found.values())


def test_the_same_content_has_the_same_tag(checkout: Path) -> None:
    before = tags(checkout)
    for path in checkout.rglob("*.py"):
        os.utime(path, (0, 0))
        path.chmod(0o600)
    (checkout / "steps" / "__pycache__").mkdir()
    (checkout / "steps" / "__pycache__" / "train.cpython-311.py").write_text("compiled", encoding="utf-8")
    assert tags(checkout) == before


@pytest.mark.parametrize("file", ["steps/__main__.py", "params/layout.py", "containers/data.lock"])
def test_other_content_has_another_tag(checkout: Path, file: str) -> None:
    before = tags(checkout, "data")
    with (checkout / file).open("a", encoding="utf-8") as opened:
        opened.write("# changed\n")
    assert tags(checkout, "data") != before


def test_a_parameter_set_is_no_part_of_an_image(checkout: Path) -> None:
    before = tags(checkout, "data")
    with (checkout / "params" / "local.yaml").open("a", encoding="utf-8") as opened:
        opened.write("# changed\n")
    assert tags(checkout, "data") == before


def test_another_base_or_user_has_another_tag(checkout: Path) -> None:
    all_of_them = [tags(checkout, "data", *more)["DataImage"] for more in ([], ["--base", "b:1"], ["--run-as", "1000"])]
    assert len(set(all_of_them)) == 3


def test_the_engine_gets_a_context_of_lock_and_code_with_its_tables(checkout: Path) -> None:
    result = build(checkout, "--engine", "docker", "--base", "base:1", "--run-as", "1000", "data")
    assert result.returncode == 0, result.stderr
    call = (checkout / "log").read_text(encoding="utf-8")
    assert "--build-arg BASE_IMAGE=base:1" in call
    assert "--build-arg RUN_AS=1000" in call
    assert f"--tag {result.stdout.strip().split('=')[1]}" in call
    context = (checkout / "log.context").read_text(encoding="utf-8").split()
    assert {"./data.Dockerfile", "./data.lock", "./steps/__main__.py", "./params/layout.py"} <= set(context)
    assert {"./steps/serving/openapi.yaml", "./steps/evaluation/compositions.jsonl"} <= set(context)
    outside = [name for name in context if not re.fullmatch(r"\./(data\.\w+|(params|steps)/.*)", name)]
    assert outside == []
    assert not [name for name in context if re.fullmatch(r"\./params/[^/]*\.yaml", name)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["everything"], "unknown argument everything"),
        (["--base"], "--base takes a value"),
        (["--engine", "no-such-engine"], "no-such-engine is not installed"),
        (["--push", "--registry", "docker.io"], "docker.io is no ECR registry"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_built(checkout: Path, arguments: list[str], message: str) -> None:
    result = build(checkout, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert not (checkout / "log").exists()
