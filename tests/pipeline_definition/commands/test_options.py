"""Options that commands share: parameter sets by name, the set that --local means, the version, completion."""

import importlib.metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from params.settings import SettingsError, load_settings
from pipeline_definition.cli import app

SHIPPED = sorted(path.stem for path in Path("params").glob("*.yaml"))


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(app, words, env=environment)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_set_goes_by_its_name_in_any_folder(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    by_path = load_settings(Path(f"params/{name}.yaml"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert load_settings(Path(name)) == by_path


def test_a_file_of_that_name_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("local").write_text("pipeline_name: own", encoding="utf-8")
    assert load_settings(Path("local")).pipeline_name == "own"


@pytest.mark.parametrize("path", ["sd2_bas", "params/local.yaml", "./own.yaml"])
def test_a_set_that_is_nowhere_names_those_that_ship(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SettingsError, match=f"cannot be read: there is no such file; these ship with sd-pipeline: {', '.join(SHIPPED)}"
    ):
        load_settings(Path(path))


def test_local_commands_mean_the_laptops_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names: list[str] = []

    def seen(_executions: object, name: str) -> list[dict[str, object]]:
        names.append(name)
        return []

    monkeypatch.setattr("pipeline_definition.runs.executions.Executions.list", seen)
    monkeypatch.setattr("pipeline_definition.local.client.is_up", lambda _state: type("Up", (), {"url": "http://x"}))
    for words in (["--local"], ["--params", "octank_100gb", "--local"], ["--local", "--params", "octank_100gb"], []):
        result = run("list", *words, AWS_DEFAULT_REGION="us-east-1")
        assert result.exit_code == 0, result.output
    assert names == ["sd-pipeline-local", "sd-octank", "sd-octank", "sd-octank"]


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").output == f"sd-pipeline {importlib.metadata.version('sd-pipeline')}\n"


def test_a_shell_can_complete_commands() -> None:
    words = {"COMP_WORDS": "sd-pipeline mod", "COMP_CWORD": "1", "_SD_PIPELINE_COMPLETE": "complete_bash"}
    result = CliRunner().invoke(app, [], prog_name="sd-pipeline", env=words)
    assert result.output == "models\n"
