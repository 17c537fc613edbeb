"""Each switch of local.cloud: is named by the probe, in the words of docs/operations.md."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from params.cloud import Cloud
from params.parameter_names import EVALUATOR
from params.programs.probe import FAILED, GOOD, NOTE, ProbeLine
from params.settings import Settings, load_settings
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.commands.checks import definition_text
from pipeline_definition.commands.options import ROOT
from pipeline_definition.jobs.planned import Values
from pipeline_definition.local.client import ensure_up
from pipeline_definition.probing.jobs import Probe
from pipeline_definition.probing.leftovers import ProbePatience
from pipeline_definition.probing.run import ProbeRun
from pipeline_definition.runs.laptop import Laptop
from pipeline_definition.session import Target
from tests.docs.test_hostile_cloud_page import TABLE
from tests.end_to_end.conftest import TINY
from tests.pipeline_definition.local.conftest import ImpatientTarget

BUCKET = "s3://sd-pipeline-tiny"
# One job meets several switches: its kind, the switches, and what is said of each: failed, a note, or good where
# all works as before.
CASES: tuple[tuple[str, dict[str, Any], dict[str, str]], ...] = (
    (
        "training",
        {"import_lag_s": 3, "spot_interruptions": 1},
        {"import_lag_s": GOOD, "spot_interruptions": NOTE},
    ),
    (
        "processing",
        {"denied": (f"{BUCKET}/urls",), "missing_endpoints": ("logs",)},
        {"denied": FAILED, "missing_endpoints": FAILED},
    ),
    (
        "processing",
        {"hidden_gpus": "ml.g4dn.xlarge", "denied_actions": ("logs:GetLogEvents",)},
        {"hidden_gpus": FAILED, "denied_actions": FAILED},
    ),
    (
        "processing",
        {"empty_log_pages": True, "throttled_logs": 1, "throttled_api": 1, "tokens_honoured": True, "name_suffix": 13},
        {
            **{"empty_log_pages": GOOD, "throttled_logs": GOOD, "throttled_api": NOTE},
            **{"tokens_honoured": GOOD, "name_suffix": GOOD},
        },
    ),
    ("processing", {"refused_members": ("ContainerEntrypoint",)}, {"refused_members": FAILED}),
    ("training", {"no_capacity": ("ml.c5.*",)}, {"no_capacity": FAILED}),
)


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
        probe = Probe(self.settings, self.definition, values, way_out=f"127.0.0.1:{pictures}", is_local=True)
        job = next(job for job in probe.jobs() if job.kind == kind)
        if spot:
            job.requests["create_training_job"]["EnableManagedSpotTraining"] = True
            job.requests["create_training_job"]["StoppingCondition"]["MaxWaitTimeInSeconds"] = 3600
        run = ProbeRun(self.target, probe, ProbePatience(0.3), 300)
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
    assert sorted(name for _, _, statuses in CASES for name in statuses) == sorted(Cloud.model_fields)


@pytest.mark.parametrize(("kind", "switches", "statuses"), CASES, ids=["-".join(case[2]) for case in CASES])
def test_the_probe_names_what_each_switch_does(
    place: Place, kind: str, switches: dict[str, Any], statuses: dict[str, str]
) -> None:
    place.turn(Cloud(**switches))
    lines = place.lines(kind, spot="spot_interruptions" in switches)
    for switch, status in statuses.items():
        match = re.match(r'(\w+): "([^"]+)"', TABLE[switch][2])
        assert match, TABLE[switch][2]
        named = [line for line in lines if line.check == match[1] and match[2] in line.text]
        assert named and named[0].status == status, (switch, lines)
        assert status == GOOD or named[0].fix or "Fix: " in named[0].text
    if FAILED not in statuses.values():
        assert not [line for line in lines if line.status == FAILED]


def test_preflight_asks_the_role_before_a_job_would_fail(place: Place) -> None:
    place.target.client("s3").create_bucket(Bucket="another-bucket")
    changes = {**place.world, EVALUATOR: "s3://another-bucket/evaluator"}
    for denied, count in (((), 0), (("s3://another-bucket",), 1)):
        place.turn(Cloud(denied=denied))
        findings = map(str, preflight(place.settings, place.definition, changes, place.target))
        named = [text for text in findings if "may not s3:ListBucket and s3:GetObject on s3://another-bucket" in text]
        assert len(named) == count
