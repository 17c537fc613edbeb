"""Every GPU instance type that SageMaker has: a forecast and a preflight, or one line that says what is missing."""

import pytest

from params.instances import has_gpus
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.cost.training import CostError
from pipeline_definition.jobs.instances import JobKind, gpu_types, instance, known_types
from tests.pipeline_definition.cost.samples import definition, settings

PARAMETER: dict[JobKind, str] = {
    "training": "TrainingInstanceType",
    "processing": "EncodeInstanceType",
    "endpoint": "EndpointInstanceType",
}
# What CUDA 13 left behind, and Arm: no price is looked for, since no job of this pipeline runs there.
UNFIT = ("ml.p2.", "ml.p3.", "ml.p3dn.", "ml.p6e-gb200.")
# Types of which no price was found with a source.
UNPRICED = tuple(f"ml.g7.{size}xlarge" for size in (2, 4, 8, 12, 24, 48))
BY_PLAN_ALONE = ("ml.p5e.48xlarge",)
TYPES = [(kind, name) for kind in PARAMETER for name in known_types(kind) if has_gpus(name)]


@pytest.mark.parametrize(("kind", "name"), TYPES, ids=lambda value: value)
def test_a_type_has_a_forecast_or_one_line_says_what_is_missing_and_how_to_give_it(kind: JobKind, name: str) -> None:
    try:
        found = forecast(settings(), definition(), {PARAMETER[kind]: name})
    except CostError as error:
        line = str(error)
        assert "\n" not in line
        told = f"sd-pipeline cost prices set {name} USD" in line
        gpu = instance(name).gpu
        told |= gpu is not None and gpu.name in line and "rates.yaml" in line
        told |= gpu is None and line.startswith(f"{name} has no GPU")
        assert told, line
        assert name.startswith(UNFIT) or name in (*UNPRICED, *BY_PLAN_ALONE) or "float32" in line, line
    else:
        lines = [line for line in (*found.lines, *found.monthly) if name in line.what]
        assert lines
        assert all((line.usd["on_demand"] or 0) > 0 for line in lines)


@pytest.mark.parametrize(("kind", "name"), TYPES, ids=lambda value: value)
def test_preflight_takes_a_type_or_names_it_with_the_fix(kind: JobKind, name: str) -> None:
    findings = preflight(settings(), definition(), {PARAMETER[kind]: name, "GlobalBatchSize": "2048"})
    own = [finding for finding in findings if finding.blocking and finding.parameter == PARAMETER[kind]]
    # The delivered set trains in bfloat16, which a T4 has not.
    unfit = name.startswith(UNFIT) or (kind, name[:8]) == ("training", "ml.g4dn.")
    assert bool(own) == unfit, own
    assert all(name in str(finding) and finding.fix for finding in own)


def test_prices_are_known_of_all_but_those_that_are_named_here() -> None:
    priced = {name for name, prices in load_prices().instances.items() if "on_demand" in prices}
    missing = {name for name in gpu_types() if name not in priced and not name.startswith(UNFIT)}
    assert missing == {*UNPRICED, *BY_PLAN_ALONE}


def test_every_type_that_training_plans_sell_has_a_plans_price() -> None:
    import botocore.session

    model = botocore.session.get_session().get_service_model("sagemaker")
    sold = set(model.shape_for("ReservedCapacityInstanceType").enum) & set(gpu_types())
    known = {name for name, prices in load_prices().instances.items() if "training_plan" in prices}
    assert sold - known == {"ml.p6e-gb200.36xlarge"}
