from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_definition.artifacts import Artifacts
from pipeline_definition.report.page import render
from pipeline_definition.report.run import Run, run_of
from tests.pipeline_definition.report import example_runs

MAKERS: dict[str, Callable[[Path], Path]] = {
    "full": example_runs.full_run,
    "missed": example_runs.missed_run,
    "broken": example_runs.broken_run,
    "aws": example_runs.aws_run,
    "billed": example_runs.billed_run,
    "third": example_runs.third_run,
}
PRICES = {"ml.p4d.24xlarge": 24.01, "ml.c5.large": 0.102}
Prices = dict[str, float] | None


@pytest.fixture(scope="session")
def named_page(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return where the page of a named run is; each is made once for the whole test run."""
    made: dict[str, Path] = {}

    def make(name: str, prices: Prices = None) -> Path:
        key = f"{name}-{'priced' if prices else 'plain'}"
        if key not in made:
            folder = tmp_path_factory.mktemp(key)
            made[key] = folder / "report.html"
            page = render(run_of(Artifacts.load(MAKERS[name](folder / "artifacts")), prices))
            made[key].write_text(page, encoding="utf-8")
        return made[key]

    return make


@pytest.fixture
def page_of(named_page: Callable[..., Path]) -> Callable[..., str]:
    """Return the page of a named run, or of a folder, as text."""

    def make(source: str | Path, prices: Prices = None) -> str:
        if isinstance(source, str):
            return named_page(source, prices).read_text(encoding="utf-8")
        return render(run_of(Artifacts.load(source), prices))

    return make


@pytest.fixture
def view_of(tmp_path: Path) -> Callable[..., Run]:
    """Return a named run as the sections see it."""

    def make(name: str, prices: Prices = None) -> Run:
        return run_of(Artifacts.load(MAKERS[name](tmp_path / name)), prices)

    return make
