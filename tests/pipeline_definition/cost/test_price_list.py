"""The price file, and its refresh from a price list that answers as AWS's does."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from pipeline_definition.cost.price_list import (
    instance_usd,
    refresh,
    service_usd,
    training_plan_usd,
    with_price,
    write_prices,
)
from pipeline_definition.cost.prices import PriceQuery, Prices, load_prices, parse_prices
from pipeline_definition.cost.training import CostError
from tests.pipeline_definition.fake_aws import FakeClient

TODAY = date(2027, 1, 2)


def product(attributes: dict[str, str], *tiers: tuple[str, float], unit: str = "Hrs") -> str:
    dimensions = {
        str(number): {"beginRange": begin, "unit": unit, "pricePerUnit": {"USD": f"{usd:.10f}"}}
        for number, (begin, usd) in enumerate(tiers)
    }
    terms = {"OnDemand": {"sku.term": {"priceDimensions": dimensions}}}
    return json.dumps({"product": {"attributes": attributes}, "terms": terms})


class PriceList:
    """Answers get_products from attributes, a page for each product, and remembers what it was asked."""

    def __init__(self, products: dict[str, list[str]]) -> None:
        self.products = products

    def get_paginator(self, operation: str) -> "PriceList":
        assert operation == "get_products"
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        wanted = {
            item["Field"]: item["Value"]
            for item in request["Filters"]
            if item["Field"] not in ("regionCode", "productFamily")
        }
        for text in self.products.get(request["ServiceCode"], []):
            if wanted.items() <= json.loads(text)["product"]["attributes"].items():
                yield {"PriceList": [text]}


def sagemaker(name: str, usd: float, component: str = "Training") -> str:
    return product({"instanceName": name, "component": component}, ("0", usd))


def small() -> Prices:
    prices = load_prices()
    return prices.model_copy(
        update={
            "instances": {name: prices.instances[name] for name in ("ml.p4d.24xlarge", "ml.g5.xlarge")},
            "services": {name: prices.services[name] for name in ("s3_gb_month", "s3_put_1000")},
        }
    )


def test_every_price_of_the_file_has_a_source_with_a_date_and_is_not_free() -> None:
    prices = load_prices()
    for entry in prices.instances.values():
        for price in entry.values():
            assert price.usd > 0
            assert prices.sources[price.source].date <= prices.date


def test_discounts_are_below_the_on_demand_price() -> None:
    for name, entry in load_prices().instances.items():
        for price in (price for way, price in entry.items() if way != "on_demand"):
            assert "on_demand" not in entry or price.usd < entry["on_demand"].usd, name


def test_a_source_that_is_not_described_is_an_error() -> None:
    text = (
        "region: r\ndate: 2026-01-01\nsources: {}\nservices: {}\n"
        "instances: {ml.x.large: {on_demand: {usd: 1, source: s}}}"
    )
    with pytest.raises(CostError, match="'s' is used"):
        parse_prices(text, "file")


def test_a_refresh_takes_new_prices_scales_the_discounts_and_says_what_changed() -> None:
    answers = {
        "AmazonSageMaker": [sagemaker("ml.p4d.24xlarge", 20.0), sagemaker("ml.p4d.24xlarge", 99.0, "Notebook")],
        "AmazonS3": [
            product({"usagetype": "TimedStorage-ByteHrs"}, ("0", 0.03), ("51200", 0.02), unit="GB-Mo"),
            product({"usagetype": "Requests-Tier1", "group": "S3-API-Tier1"}, ("0", 0.000006)),
        ],
    }
    before = small()
    found = refresh(before, PriceList(answers), "us-east-1", TODAY)
    after = parse_prices(found.text, "new")
    assert after.date == TODAY
    assert after.instance_hour_usd("ml.p4d.24xlarge") == 20.0
    spot = before.in_region("us-east-1", "ml.p4d.24xlarge", "spot") * 20.0 / 25.251286
    assert after.in_region("us-east-1", "ml.p4d.24xlarge", "spot") == pytest.approx(spot, rel=1e-3)
    assert after.service_usd("s3_gb_month") == 0.03
    assert after.service_usd("s3_put_1000") == pytest.approx(0.006)
    assert after.sources[after.known("ml.p4d.24xlarge", "on_demand").source].date == TODAY
    assert [line.split(":")[0] for line in found.changed] == ["ml.p4d.24xlarge", "s3_gb_month", "s3_put_1000"]


def test_what_the_price_list_does_not_answer_stays_with_its_own_source_and_is_named() -> None:
    found = refresh(small(), PriceList({}), "us-east-1", TODAY)
    after = parse_prices(found.text, "new")
    assert after.instances["ml.g5.xlarge"] == small().instances["ml.g5.xlarge"]
    assert any(line.startswith("ml.g5.xlarge: no answer") for line in found.kept)


def test_an_added_instance_type_is_asked_for_and_an_unknown_one_refused() -> None:
    answers = PriceList({"AmazonSageMaker": [sagemaker("ml.p5e.48xlarge", 70.0)]})
    text = refresh(small(), answers, "us-east-1", TODAY, ["ml.p5e.48xlarge"]).text
    assert parse_prices(text, "new").instance_hour_usd("ml.p5e.48xlarge") == 70.0
    with pytest.raises(CostError, match=r"ml\.nope\.large"):
        refresh(small(), answers, "us-east-1", TODAY, ["ml.nope.large"])


def test_another_region_keeps_none_of_the_first_ones_instance_prices() -> None:
    answers = PriceList({"AmazonSageMaker": [sagemaker("ml.p4d.24xlarge", 30.0)]})
    after = parse_prices(refresh(small(), answers, "eu-west-1", TODAY).text, "new")
    assert after.region == "eu-west-1"
    assert set(after.instances) == {"ml.p4d.24xlarge"}
    assert "spot" not in after.instances["ml.p4d.24xlarge"]


def test_prices_that_contradict_each_other_are_not_chosen_from() -> None:
    two = [
        product({"usagetype": name}, ("0", usd))
        for name, usd in (("USW2-NatGateway-Hours", 1), ("NatGateway-Hours", 2))
    ]
    query = PriceQuery(service="AmazonEC2", usagetype="NatGateway-Hours")
    assert service_usd(PriceList({"AmazonEC2": two}), query, "us-east-1") is None
    assert service_usd(PriceList({"AmazonEC2": two[:1]}), query, "us-west-2") == 1.0


def test_the_request_is_one_that_the_real_client_sends() -> None:
    client = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
    with Stubber(client) as stub:
        expected = {"ServiceCode": "AmazonSageMaker", "Filters": ANY}
        answer = [sagemaker("ml.p5.48xlarge", 63.0), sagemaker("ml.p5.48xlarge", 64.0, "Hosting")]
        stub.add_response("get_products", {"FormatVersion": "aws_v1", "PriceList": answer}, expected)
        assert instance_usd(client, "ml.p5.48xlarge", "us-east-1") == 64.0


def test_the_file_is_written_whole_and_keeps_the_comment_on_top(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("# Prices.\nregion: old\n", encoding="utf-8")
    write_prices(refresh(small(), PriceList({}), "us-east-1", TODAY).text, file)
    assert file.read_text(encoding="utf-8").startswith("# Prices.\nregion: us-east-1\n")
    assert load_prices(file).date == TODAY
    assert [path.name for path in tmp_path.iterdir()] == ["prices.yaml"]


def test_a_price_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CostError, match=r"prices\.yaml: cannot be read: No such file"):
        load_prices(tmp_path / "prices.yaml")


def test_a_type_that_is_sought_and_not_sold_is_named_and_stays_out_of_the_file() -> None:
    found = refresh(small(), PriceList({}), "us-east-1", TODAY, sought=["ml.g7.48xlarge", "ml.g5.xlarge"])
    assert "ml.g7.48xlarge: no price on demand in us-east-1" in found.kept
    assert sum(line.startswith("ml.g5.xlarge:") for line in found.kept) == 1
    assert set(parse_prices(found.text, "new").instances) == set(small().instances)


def test_a_type_that_is_sold_by_plan_alone_survives_a_refresh() -> None:
    prices = load_prices()
    only = prices.model_copy(
        update={"instances": {"ml.p5e.48xlarge": prices.instances["ml.p5e.48xlarge"]}, "services": {}}
    )
    found = refresh(only, PriceList({}), "us-east-1", TODAY)
    assert found.kept == ("ml.p5e.48xlarge: no price on demand in us-east-1",)
    assert parse_prices(found.text, "new").instances == only.instances


def test_a_price_of_ones_own_stands_with_its_source_and_date() -> None:
    text = with_price(small(), "ml.g7.48xlarge", "on_demand", 20.5, "our account team", TODAY)
    after = parse_prices(text, "new")
    price = after.known("ml.g7.48xlarge", "on_demand")
    assert (price.usd, after.sources[price.source].says, after.sources[price.source].date) == (
        20.5,
        "our account team",
        TODAY,
    )
    assert after.instances["ml.g5.xlarge"] == small().instances["ml.g5.xlarge"]


PLAN = {
    "TrainingPlanArn": "arn:aws:sagemaker:us-east-1:123456789012:training-plan/spring",
    "TrainingPlanName": "spring",
    "Status": "Active",
    "DurationHours": 47,
    "DurationMinutes": 30,
    "TotalInstanceCount": 4,
    "UpfrontFee": "7900.00",
    "CurrencyCode": "USD",
    "ReservedCapacitySummaries": [
        {
            "ReservedCapacityArn": "arn:aws:sagemaker:us-east-1:123456789012:reserved-capacity/one",
            "InstanceType": "ml.p5e.48xlarge",
            "TotalInstanceCount": 4,
            "Status": "Active",
        }
    ],
}


def plan_client(plan: dict[str, Any]) -> FakeClient:
    return FakeClient("sagemaker", {"describe_training_plan": lambda TrainingPlanName: plan})  # noqa: N803


def test_a_training_plan_costs_its_fee_over_its_host_hours() -> None:
    client = plan_client(PLAN)
    assert training_plan_usd(client, PLAN["TrainingPlanArn"]) == ("ml.p5e.48xlarge", round(7900 / (47.5 * 4), 6))


@pytest.mark.parametrize("changed", [{"UpfrontFee": ""}, {"CurrencyCode": "EUR"}, {"TotalInstanceCount": 0}])
def test_a_plan_that_tells_no_dollars_is_refused(changed: dict[str, Any]) -> None:
    client = plan_client(PLAN | changed)
    with pytest.raises(CostError, match="tells no fee in dollars"):
        training_plan_usd(client, PLAN["TrainingPlanArn"])
