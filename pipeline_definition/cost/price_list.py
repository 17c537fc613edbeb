"""Writes the price file again from the AWS price list API.

Reads prices.yaml and asks `pricing:GetProducts`, which needs credentials and nothing else; writes prices.yaml. What the
price list does not answer stays as it was, with its own source and date, and is named.

    sd-pipeline cost prices refresh
    sd-pipeline cost prices plan arn:aws:sagemaker:us-east-1:111122223333:training-plan/spring
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from params.files import write_text
from pipeline_definition.cost.prices import PriceQuery, Prices, Purchase, parse_prices
from pipeline_definition.cost.training import CostError

# The price list API answers in few regions, for all of them.
API_REGION = "us-east-1"
SOURCE = "price-list"
# What this pipeline runs; HyperPod, notebooks and the like have prices of their own.
COMPONENTS = ("Training", "Processing", "Hosting")


@dataclass(frozen=True)
class Refreshed:
    text: str
    changed: tuple[str, ...]
    """`NAME: old -> new`."""
    kept: tuple[str, ...]
    """What the price list did not answer."""


def refresh(
    prices: Prices, client: Any, region: str, today: date, added: Sequence[str] = (), sought: Sequence[str] = ()
) -> Refreshed:
    """Return the price file with every figure that the price list knows; `added` are further instance types.

    Raises CostError for an added instance type that it does not know; one that is `sought` is then only named.
    """
    document = _document(prices, SOURCE, f"AWS price list API, {region}, on demand, first tier", today)
    document["region"], moved = region, region != prices.region
    changed: list[str] = []
    kept: list[str] = []
    for name in dict.fromkeys([*document["instances"], *added, *sought]):
        usd = instance_usd(client, name, region)
        if usd is None and name not in (*document["instances"], *added):
            kept.append(f"{name}: no price on demand in {region}")
        else:
            _put_instance(document, name, usd, changed, kept, moved)
    for name, service in prices.services.items():
        usd = service_usd(client, service.query, region)
        _put(document["services"][name], name, None if usd is None else usd * service.scale, changed, kept)
    document["instances"] = {name: entry for name, entry in document["instances"].items() if entry}
    return Refreshed(_checked_text(document), tuple(changed), tuple(kept))


def with_price(prices: Prices, instance_type: str, way: Purchase, usd: float, says: str, today: date) -> str:
    """Return the price file with one price more, or another one, and where it comes from."""
    source = f"{way}-{instance_type}"
    document = _document(prices, source, says, today)
    document["instances"].setdefault(instance_type, {})[way] = {"usd": usd, "source": source}
    return _checked_text(document)


def training_plan_usd(client: Any, arn: str) -> tuple[str, float]:
    """Return the instance type of a training plan, and its fee for one host-hour.

    Raises CostError for a plan that tells no fee in dollars.
    """
    plan = client.describe_training_plan(TrainingPlanName=arn.rsplit("/", 1)[-1])
    hours = plan.get("DurationHours", 0) + plan.get("DurationMinutes", 0) / 60
    host_hours = hours * plan.get("TotalInstanceCount", 0)
    fee, currency = float(plan.get("UpfrontFee") or 0), plan.get("CurrencyCode", "USD")
    if not (fee and host_hours) or currency != "USD":
        raise CostError(f"{arn} tells no fee in dollars (status {plan['Status']}): write it with `cost prices set`")
    return str(plan["ReservedCapacitySummaries"][0]["InstanceType"]), round(fee / host_hours, 6)


def write_prices(text: str, path: Path) -> None:
    """Put the new file in the old one's place at once; the comment on top stays."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else ()
    write_text(path, "".join(itertools.takewhile(lambda line: line.startswith("#"), lines)) + text)


def _document(prices: Prices, source: str, says: str, today: date) -> dict[str, Any]:
    """Return the price file's content with today's date and one source more."""
    document = prices.model_dump(mode="json", exclude_none=True)
    document["date"] = today.isoformat()
    document["sources"][source] = {"says": says, "date": today.isoformat()}
    return document


def _checked_text(document: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(document), sort_keys=False, width=120, allow_unicode=True)
    parse_prices(text, "the new prices")
    return text


def instance_usd(client: Any, instance_type: str, region: str) -> float | None:
    """Return dollars for one hour of a SageMaker instance; the dearest of its components where they differ."""
    products = _products(client, "AmazonSageMaker", {"regionCode": region, "instanceName": instance_type})
    ours = [product for product in products if product["product"]["attributes"].get("component") in COMPONENTS]
    return max((usd for product in ours for usd in _first_tier(product, "")), default=None)


def service_usd(client: Any, query: PriceQuery, region: str) -> float | None:
    """Return dollars for one unit; None where no product or several with different prices answer."""
    prices = set[float]()
    for product in _products(client, query.service, {"regionCode": region, **query.attributes}):
        usage = product["product"]["attributes"].get("usagetype", "")
        # With or without a region's prefix such as USW2-.
        if not query.usagetype or f"-{usage}".endswith(f"-{query.usagetype}"):
            prices.update(_first_tier(product, query.unit))
    return prices.pop() if len(prices) == 1 else None


def _products(client: Any, service: str, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    for page in client.get_paginator("get_products").paginate(ServiceCode=service, Filters=filters):
        for text in page["PriceList"]:
            yield json.loads(text)


def _first_tier(product: Mapping[str, Any], unit: str) -> Iterator[float]:
    """Yield a product's on-demand dollars: the first tier, and no free ones."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if usd > 0 and dimension.get("beginRange", "0") == "0" and unit in ("", dimension.get("unit")):
                yield usd


def _put_instance(
    document: dict[str, Any], name: str, usd: float | None, changed: list[str], kept: list[str], moved: bool
) -> None:
    entry = document["instances"].setdefault(name, {})
    if usd is None and not entry:
        raise CostError(f"the price list knows no {name} in {document['region']}: check its name and region")
    if moved and usd is None:
        kept.append(f"{name}: not to be had in {document['region']}, left out")
        entry.clear()
        return
    if moved:
        # Another region's spot prices and plans say nothing about this one's.
        for way in ("spot", "savings_plan", "training_plan"):
            entry.pop(way, None)
    before = entry.get("on_demand", {}).get("usd")
    if not before and usd is None:
        kept.append(f"{name}: no price on demand in {document['region']}")
        return
    _put(entry.setdefault("on_demand", {}), name, usd, changed, kept)
    if before and usd:
        # A discount is a part of the price that it was found with.
        for way in ("spot", "savings_plan"):
            if way in entry:
                entry[way]["usd"] = round(entry[way]["usd"] * usd / before, 4)


def _put(entry: dict[str, Any], name: str, usd: float | None, changed: list[str], kept: list[str]) -> None:
    if usd is None:
        kept.append(f"{name}: no answer, still ${entry['usd']:g} of {entry['source']}")
        return
    if entry.get("usd") != usd:
        changed.append(f"{name}: {entry.get('usd', 'new')} -> {usd:g}")
    entry |= {"usd": usd, "source": SOURCE}
