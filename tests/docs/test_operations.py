"""Every command of docs/operations.md is one that the command line takes, on files and parameters that are there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from params.programs import TrainArguments
from params.settings import load_settings
from pipeline_definition.cli import app
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.definition.pipeline import build_definition
from pipeline_definition.infrastructure.stack import StackTemplate
from pipeline_definition.jobs.planned import Values, planned_jobs
from tests.pipeline_definition.definition.test_pipeline import NEWER_FIELDS, NEWER_STEP_FIELDS
from tests.pipeline_definition.definition.test_terms import NEWER_TERMS
from tests.pipeline_definition.definitions import all_steps, defaults_of, definition_of

PAGE = Path("docs/operations.md")
TEXT = PAGE.read_text(encoding="utf-8")
# typer brings its own click.
USAGE_ERROR = typer.BadParameter.__mro__[1]


def commands() -> Iterator[str]:
    """Yield the page's commands of this project, from its blocks of shell."""
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"sd-pipeline [^|>)]+", line)
            if found:
                yield found.group().strip()


def parsed(words: list[str]) -> dict[str, Any]:
    """Return the options of the command that words name; raises UsageError."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    options: dict[str, Any] = command.make_context(command.name, list(words)).params
    return options


def test_the_page_has_commands_of_every_stage() -> None:
    named = {" ".join(shlex.split(command)[1:3]) for command in commands()}
    assert {"infra deploy", "infra destroy", "models approve", "models compare"} <= named
    assert len(list(commands())) > 25


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_is_one_that_the_command_line_takes(command: str) -> None:
    options = parsed(shlex.split(command)[1:])
    params = options.get("params")
    assert params is None or load_settings(Path(params)).pipeline_name
    known = StackTemplate().parameters if "infra" in command else defaults_of(definition_of("octank_100gb"))
    for change in options.get("changes") or ():
        assert change.partition("=")[0] in known


def test_an_unknown_option_would_be_found() -> None:
    with pytest.raises(USAGE_ERROR, match="no-such-option"):
        parsed(["models", "list", "--no-such-option"])


def test_every_link_of_the_page_leads_somewhere() -> None:
    headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.*)$", TEXT, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, anchor = target.partition("#")
        assert not file or (PAGE.parent / file).exists(), target
        assert not anchor or file or anchor in headings, target


def test_the_figures_are_those_of_the_price_file() -> None:
    prices = load_prices()
    assert 1200 * prices.service_usd("fsx_gb_month_125") == pytest.approx(174)
    assert 2 * prices.instance_hour_usd("ml.g5.2xlarge") == pytest.approx(3.03)
    assert prices.service_usd("nat_hour") == prices.service_usd("nat_gb") == 0.045
    assert prices.service_usd("endpoint_hour") == 0.01
    assert "warm_latents" in TrainArguments.model_fields


@pytest.mark.parametrize(
    ("gpus", "samples_per_s", "sample_kb", "reads"),
    [(8, 137.5, 16.538, 18), (64, 137.5, 16.538, 146), (64, 36.3, 65.69, 153), (64, 138, 65.69, 580)],
)
def test_the_table_of_throughput_is_arithmetic(gpus: int, samples_per_s: float, sample_kb: float, reads: int) -> None:
    assert round(gpus * samples_per_s * sample_kb / 1000) == reads
    assert f"| {reads} MB/s |" in TEXT


def test_every_member_that_the_published_schema_does_not_know_is_listed_with_its_fallback() -> None:
    section = TEXT.split("## Newer than the published definition schema")[1].split("\n## ")[0]
    for member in (*NEWER_FIELDS, *NEWER_STEP_FIELDS, *NEWER_TERMS, "EnumValues", "EndpointConfig"):
        assert f"`{member}`" in section, member


def rows(heading: str) -> list[list[str]]:
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines[1:]]


def test_every_step_has_a_row_with_its_hosts_and_what_they_cost_an_hour() -> None:
    definition = definition_of("octank_100gb")
    jobs = {job.step: job for job in planned_jobs(definition, Values(definition, {}))}
    jobs["Endpoint"] = jobs.pop("EndpointConfig")
    table = {row[0]: row for row in rows("What each step makes, needs, costs and leaves")}
    assert set(all_steps(definition)) - {"GateFailed"} == set(table) - {"(approval)"}
    for step, row in table.items():
        if step in jobs:
            job = jobs[step]
            usd = job.count * job.parallel * load_prices().instance_hour_usd(job.instance.name)
            assert row[3:5] == [f"{job.count * job.parallel} x {job.instance.name}", f"${usd + 1e-9:.2f}"], step
        else:
            assert row[3] == "-" or step == "(approval)"


def test_permissions_and_places_of_the_steps_are_the_templates() -> None:
    template = StackTemplate().content["Resources"]
    policies = [
        template[name]["Properties"]["PolicyDocument"]["Statement"]
        for name in ("DataAccess", "NetworkAccess", "PipelineAccess")
    ]
    statements = {entry["Sid"]: entry for policy in policies for entry in policy if "Sid" in entry}
    written = str(statements["WriteArtifacts"]["Resource"])
    for row in rows("What each step makes, needs, costs and leaves"):
        for sid in re.findall(r"`(\w+)`", row[2]):
            assert sid in statements, sid
        for place in re.findall(r"`(\w+)/`", row[1]):
            assert f"/{place}/*" in written, place


def test_the_forecast_of_the_page_is_the_forecasts() -> None:
    bill = forecast(load_settings(Path("params/octank_100gb.yaml")), definition_of("octank_100gb"), {})
    usd = {line.step: line.usd["on_demand"] or 0.0 for line in bill.lines}
    told = {step: usd.pop(step) for step in ("Train", "Tune", "Evaluate", "Encode")}
    words = ", ".join(f"{step} ${amount:.0f}" for step, amount in told.items())
    assert f"the forecast is ${bill.usd('on_demand'):.0f} on demand: {words}, the rest ${sum(usd.values()):.0f}" in TEXT


def test_every_parameter_for_an_account_as_it_is_is_on_the_page() -> None:
    named = {name for row in rows("Into a company's account") for name in re.findall(r"`(\w+)`", row[0])}
    assert named >= {
        "VpcId",
        "SubnetIds",
        "SecurityGroupIds",
        "ExecutionRoleArn",
        "KmsKeyArn",
        "ReadBucketArns",
        "ReadKeyArns",
    }
    assert named <= set(StackTemplate().parameters)


def test_a_set_with_instance_groups_has_a_fallback_without() -> None:
    settings = load_settings(Path("params/sd2_heterogeneous.yaml"))
    assert '"InstanceGroups"' in build_definition(settings)
    encode = settings.encode.model_copy(update={"max_train_rows": 0})
    text = build_definition(settings.model_copy(update={"encoders": None, "encode": encode}))
    assert "InstanceGroup" not in text
