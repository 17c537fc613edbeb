"""Definitions are built once for the same settings, and a bad start is refused before anything slow happens."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from params.settings import Settings, load_settings
from pipeline_definition.commands.checks import definition_text
from pipeline_definition.cost import host_hours
from pipeline_definition.cost.prices import PRICES_FILE, load_prices
from pipeline_definition.definition import pipeline
from pipeline_definition.definition import pipeline as definition_cache
from pipeline_definition.definition.pipeline import cache_folder, definition_of, digest_of
from tests.pipeline_definition.definitions import defaults_of, text_of

LOCAL = Path("params/local.yaml")
# What `time` adds up for a command: waiting for other work on the machine does not count.
MEASURED = """
import os, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, used.ru_utime + used.ru_stime, done.stderr.replace(chr(10), " "))
"""


def measured(code: str, *arguments: str, **environment: str) -> tuple[int, float, str]:
    """Run Python code in a process of its own; return its status, its seconds of CPU and what it said."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    status, seconds, said = result.stdout.split(" ", 2)
    return int(status), float(seconds), said


@pytest.fixture(scope="module")
def importing_s() -> float:
    """What any command takes before it does anything."""
    status, seconds, said = measured("import pipeline_definition.cli")
    assert status == 0, said
    return seconds


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_the_second_time_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Settings] = []

    def build(settings: Settings) -> str:
        built.append(settings)
        return text_of("local")

    monkeypatch.setattr(pipeline, "build_definition", build)
    settings = load_settings(LOCAL)
    assert definition_of(settings) == definition_of(settings) == text_of("local")
    assert len(built) == 1
    definition_of(settings.model_copy(update={"training_run": "another"}))
    assert len(built) == 2


def test_other_code_or_another_sdk_is_another_definition(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_settings(LOCAL)
    before = digest_of(settings)
    assert digest_of(settings) == before
    changed = tmp_path / "pipeline.py"
    changed.write_text("changed", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(definition_cache, "_sources", lambda: iter([changed]))
        assert digest_of(settings) != before
    with monkeypatch.context() as patch:
        patch.setattr("importlib.metadata.version", lambda name: "0")
        assert digest_of(settings) != before


def test_a_changed_price_reaches_the_definition_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(shutil.copy(PRICES_FILE, tmp_path / "prices.yaml"))
    monkeypatch.setattr(host_hours, "load_prices", lambda: load_prices(file))
    settings = load_settings(Path("params/sd2_base.yaml"))
    usd = load_prices(file).instance_hour_usd(settings.train.job.instance_type)
    names = ("TrainingInstanceHourUsd", "TrainingPhase2InstanceHourUsd")
    before = defaults_of(json.loads(definition_text(settings)))
    file.write_text(file.read_text(encoding="utf-8").replace(f"usd: {usd}", f"usd: {2 * usd}"), encoding="utf-8")
    after = defaults_of(json.loads(definition_text(settings)))
    assert [before[name] for name in names] == [usd, usd]
    assert [after[name] for name in names] == [2 * usd, 2 * usd]


def test_the_digest_covers_every_file_that_a_definition_is_made_of() -> None:
    build = """
import json, sys
from pathlib import Path
from params.settings import load_settings
from pipeline_definition.definition.pipeline import build_definition
opened = []
sys.addaudithook(lambda event, of: opened.append(of[0]) if event == "open" and isinstance(of[0], str) else None)
build_definition(load_settings(Path("params/local.yaml")))
print(json.dumps([*opened, *(module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None))]))
"""
    done = subprocess.run([sys.executable, "-c", build], capture_output=True, text=True, check=True, timeout=120)
    root = Path.cwd()
    read = {Path(name).resolve() for name in json.loads(done.stdout.splitlines()[-1])}
    own = {path for path in read if path.is_relative_to(root) and ".venv" not in path.parts and path.suffix != ".pyc"}
    assert root / "pipeline_definition/definition/pipeline.py" in own
    assert own <= set(definition_cache._sources())


def test_a_damaged_entry_is_built_again_and_a_home_that_cannot_be_written_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pipeline, "build_definition", lambda settings: "{}")
    settings = load_settings(LOCAL)
    cache_folder().mkdir(parents=True)
    (cache_folder() / f"{digest_of(settings)}.json").write_text("{", encoding="utf-8")
    assert definition_of(settings) == "{}"
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert definition_of(settings) == "{}"


def test_old_entries_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "build_definition", lambda settings: "{}")
    monkeypatch.setattr(definition_cache, "MAX_KEPT", 2)
    for run in ("a", "b", "c"):
        definition_of(Settings(training_run=run))
    assert len(list(cache_folder().glob("*.json"))) == 2


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the local set's definition, as after any earlier command."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(pipeline, "build_definition", lambda settings: text_of("local"))
        definition_of(load_settings(LOCAL))
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("TrainingInstanceCont=4", "TrainingInstanceCont: unknown parameter TrainingInstanceCont; did you mean"),
        ("TrainingInstanceCount=four", "TrainingInstanceCount: 'four' is not an integer"),
        ("TrainingInstanceCount=3", "TrainingInstanceCount: GlobalBatchSize 32 does not divide"),
        ("FsxPath=", "FsxPath: '' is not a path on the file system"),
    ],
)
def test_a_bad_parameter_is_refused_by_name_before_anything_slow_happens(
    kept: Path, importing_s: float, tmp_path: Path, change: str, named: str
) -> None:
    flags = ["--params", str(LOCAL), "--state", str(tmp_path / "state"), "--runs", str(tmp_path / "runs")]
    status, seconds, said = measured(
        "from pipeline_definition.cli import main; main()",
        "run-local",
        *flags,
        "--set",
        change,
        XDG_CACHE_HOME=str(kept),
    )
    assert status == 2, said
    assert named in said
    # It takes 1.2 times as long on a machine of any speed, and 4 times where a definition is built.
    assert seconds < 2 * importing_s
    assert not (tmp_path / "state").exists()
