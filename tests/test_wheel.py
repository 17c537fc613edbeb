"""The wheel: what is in it, and that its command works in an empty folder, without the checkout."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = ("params", "pipeline_definition", "steps", "shapes")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves files behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(name, source)
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with the wheel's alone; the libraries are this environment's."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture
def run(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run the wheel's command in an empty folder."""

    def call(*words: str, status: int = 0) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        code = "import pipeline_definition.__main__ as m; print(m.__file__, file=__import__('sys').stderr); m.main()"
        command = [sys.executable, "-c", code, *words]
        folder = tmp_path / "empty"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == status, done.stderr
        assert done.stderr.startswith(str(site))
        return done.stdout

    return call


def test_it_holds_every_file_that_the_checkouts_packages_hold(wheel: Path) -> None:
    there = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        str(path)
        for package in PACKAGES
        for path in Path(package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    assert wanted - there == set()
    assert {name.split("/")[0] for name in there} == set(PACKAGES)


def test_its_entry_point_is_ready_for_ctrl_c(site: Path) -> None:
    points = next(site.glob("*.dist-info")) / "entry_points.txt"
    assert "sd-pipeline = pipeline_definition.__main__:main" in points.read_text(encoding="utf-8")


def test_a_definition_is_the_checkouts_to_the_byte(run) -> None:  # type: ignore[no-untyped-def]
    ours = subprocess.run(
        [sys.executable, "-m", "pipeline_definition", "definition", "--params", "params/sd2_base.yaml"],
        capture_output=True,
        check=True,
    ).stdout
    theirs = run("definition", "--params", "sd2_base").encode()
    assert hashlib.sha256(theirs).hexdigest() == hashlib.sha256(ours).hexdigest()


def test_forecast_and_a_set_of_ones_own_work_in_an_empty_folder(run) -> None:  # type: ignore[no-untyped-def]
    answers = ("--name", "own", "--url-table", "s3://own-bucket/urls/", "--rows", "200000", "--resolution-px", "256")
    assert run("init", *answers, "--instance-type", "ml.p4d.24xlarge").endswith("own.yaml\n")
    assert "ml.p4d.24xlarge" in run("cost", "forecast", "--params", "own.yaml", "--json")


def test_the_local_control_plane_starts_there(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    try:
        assert run("local", "up").startswith("up at http://127.0.0.1:")
        assert '"url": "http://127.0.0.1:' in run("local", "status", "--json")
    finally:
        run("local", "down")
    assert (tmp_path / "empty" / ".sd-pipeline").is_dir()
