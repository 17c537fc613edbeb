"""A model's metrics over the versions of its package group, and the gate's lines for whoever approves in the console.

Reads the registry and each metrics.json; writes versions.json among a run's artifacts and its package's metadata.

    sd-pipeline report latest
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from params.files import write_json
from params.parameter_names import MODEL_PACKAGE_GROUP
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.artifacts.folder import EXECUTION_FILE, VERSIONS_FILE
from pipeline_definition.errors import OperatorError
from pipeline_definition.models.gate import gate_lines
from pipeline_definition.models.metric_names import metric_name
from pipeline_definition.models.package_record import PackageFiles, judged_metrics
from pipeline_definition.models.registry import PackageGroup
from pipeline_definition.pages.document import Table
from pipeline_definition.pages.formats import DASH, figure, moment
from pipeline_definition.session import Target

MAX_VERSIONS: Final = 8
# A package's metadata takes neither commas nor dashes.
SPELT: Final = str.maketrans({",": "", DASH: "none"})


def with_versions(target: Target, artifacts: Artifacts) -> Artifacts:
    """Return the artifacts with the versions before their run, its gate's lines noted; refusals are left_out."""
    group, package = artifacts.parameters.get(MODEL_PACKAGE_GROUP), artifacts.model_package
    if not artifacts.metrics or not group:
        return artifacts
    try:
        versions = versions_of(target, group, moment(artifacts.execution.get("start")))
        write_json(artifacts.folder / VERSIONS_FILE, {"versions": versions})
        if package:
            texts = {
                f"gate_{key}": f"{judged[2:]} / value {value} / interval {interval} / limit {asked}".translate(SPELT)
                for key, (_, value, interval, asked, judged) in gate_lines(artifacts).items()
            }
            about = {"ModelPackageArn": package["arn"], "CustomerMetadataProperties": texts}
            target.client("sagemaker").update_model_package(**about)
    except (BotoCoreError, ClientError, OperatorError) as error:
        left_out = {**artifacts.execution.get("left_out", {}), VERSIONS_FILE: str(error)}
        write_json(artifacts.folder / EXECUTION_FILE, {**artifacts.execution, "left_out": left_out})
    return Artifacts.load(artifacts.folder)


def versions_of(target: Target, group: str, before: datetime | None = None) -> list[dict[str, Any]]:
    """Return the newest versions of a group with their metrics, and the newest approved one, oldest first."""
    files, packages = PackageFiles(target), PackageGroup(target, group).list()
    packages = [one for one in packages if before is None or datetime.fromisoformat(one.created) < before]
    approved = next((one.version for one in packages if one.status == "Approved"), None)
    versions: list[dict[str, Any]] = []
    for package in packages[:MAX_VERSIONS] + [one for one in packages[MAX_VERSIONS:] if one.version == approved]:
        versions.insert(0, {"version": package.version, "status": package.status, "metrics": {}})
        try:
            versions[0]["metrics"] = judged_metrics(files.metrics(package))
        except OperatorError as error:
            versions[0]["problem"] = str(error)
    return versions


def trend_table(versions: Sequence[Mapping[str, Any]]) -> Table:
    shown = {"Approved": " approved", "this run": " this run"}
    headers = [f"{one['version']}{shown.get(one['status'], '')}" for one in versions]
    names = dict.fromkeys(name for one in versions for name in one["metrics"])
    entries = ((name, [one["metrics"].get(name) for one in versions]) for name in names)
    rows = ((metric_name(name), *(figure(one["value"]) if one else DASH for one in own)) for name, own in entries)
    return Table(("metric by version", *headers), tuple(rows), frozenset(range(1, len(headers) + 1)))
