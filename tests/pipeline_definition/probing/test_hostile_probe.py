"""Each switch of local.cloud: is named by the probe, in the words of docs/operations.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from params.cloud import Cloud
from params.probe_line import FAILED, GOOD, NOTE, ProbeLine
from params.settings import Settings, load_settings
from pipeline_definition.commands.checks import definition_text
from pipeline_definition.commands.options import ROOT
from pipeline_definition.jobs.planned import Values
from pipeline_definition.local import namespaces
from pipeline_definition.local.client import ensure_up
from pipeline_definition.probing.jobs import Probe
from pipeline_definition.probing.patience import Patience
from pipeline_definition.probing.run import ProbeRun
from pipeline_definition.runs.laptop import Laptop
from pipeline_definition.session import Target
from tests.docs.test_hostile_cloud_page import TABLE
from tests.end_to_end.conftest import TINY
from tests.pipeline_definition.local.conftest import ImpatientTarget

BUCKET = "s3://sd-pipeline-tiny"
# Switches, the kind of job that meets them, and what is said of it: failed, a note, or good where all works as before.
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "foreign_hosts": ({"foreign_hosts": True}, "training", NOTE),
    "no_internet": ({"no_internet": True}, "processing", FAILED),
    "hidden_gpus": ({"hidden_gpus": "ml.g4dn.xlarge"}, "processing", FAILED),
    "import_lag_s": ({"import_lag_s": 3}, "training", GOOD),
    "denied": ({"denied": (f"{BUCKET}/urls",)}, "processing", FAILED),
    "denied_actions": ({"denied_actions": ("logs:GetLogEvents",)}, "processing", FAILED),
    "empty_log_pages": ({"empty_log_pages": True}, "processing", GOOD),
    "throttled_logs": ({"throttled_logs": 1}, "processing", GOOD),
    "throttled_api": ({"throttled_api": 1}, "processing", NOTE),
    "tokens_honoured": ({"tokens_honoured": True}, "processing", GOOD),
    "refused_members": ({"refused_members": ("ContainerEntrypoint",)}, "processing", FAILED),
    "name_suffix": ({"name_suffix": 13}, "processing", GOOD),
    "spot_interruptions": ({"spot_interruptions": 1}, "training", NOTE),
    "no_capacity": ({"no_capacity": ("ml.c5.*",)}, "training", FAILED),
    "missing_endpoints": ({"missing_endpoints": ("logs",)}, "processing", FAILED),
    "disk_mb": ({"disk_mb": 100}, "processing", FAILED),
}
IN_NAMESPACES = ("foreign_hosts", "no_internet", "disk_mb")


@dataclass(frozen=True)
class Place:
    """One control plane with its world."""

    folder: Path
    target: Target
    settings: Settings
    definition: Mapping[str, Any]
    world: Mapping[str, str]

    def turn(self, cloud: Cloud) -> None:
        ensure_up(self.folder / "state", self.folder / "runs", cloud=cloud)

    def lines(self, kind: str, spot: bool) -> list[ProbeLine]:
        """Run one job of the probe; return what its hosts and SageMaker said."""
        pictures = (self.folder / "state" / "world" / "port").read_text()
        values = Values(self.definition, self.world)
        probe = Probe.of(self.settings, self.definition, values, way_out=f"127.0.0.1:{pictures}", is_local=True)
        job = next(job for job in probe.jobs() if job.kind == kind)
        if spot:
            job.requests["create_training_job"]["EnableManagedSpotTraining"] = True
            job.requests["create_training_job"]["StoppingCondition"]["MaxWaitTimeInSeconds"] = 3600
        run = ProbeRun(self.target, probe, Patience(0.3), 120)
        run.start([job])
        assert list(run.snapshots())
        return [line for lines in run.outcomes[job.label].hosts.values() for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    settings = load_settings(TINY)
    assert settings.local is not None
    settings = settings.model_copy(update={"local": settings.local.model_copy(update={"rows": 16})})
    with ensure_up(folder / "state", folder / "runs", leash=True) as plane:
        target = ImpatientTarget(settings.account.region, plane.url)
        with Laptop(settings, target, folder / "state" / "world", ROOT).ready() as world:
            yield Place(folder, target, settings, json.loads(definition_text(settings)), world)


def test_every_switch_has_a_case() -> None:
    assert list(CASES) == list(Cloud.model_fields)


@pytest.mark.parametrize("switch", CASES)
def test_the_probe_names_what_a_switch_does(place: Place, switch: str) -> None:
    if switch in IN_NAMESPACES and not namespaces.possible():
        pytest.skip("network namespaces need root, ip and unshare")
    switches, kind, status = CASES[switch]
    place.turn(Cloud(**switches))
    lines = place.lines(kind, spot=switch == "spot_interruptions")
    match = re.match(r'(\w+): "([^"]+)"', TABLE[switch][2])
    assert match, TABLE[switch][2]
    named = [line for line in lines if line.check == match[1] and match[2] in line.text]
    assert named and named[0].status == status, lines
    if status == GOOD:
        assert not [line for line in lines if line.status == FAILED]
    else:
        assert named[0].fix or "Fix: " in named[0].text
