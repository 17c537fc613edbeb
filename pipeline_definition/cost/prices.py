"""What AWS charges: reads prices.yaml, one dated file with a source for every figure; writes nothing.

sd-pipeline cost prices refresh
sd-pipeline cost prices set ml.p5e.48xlarge 70 --source "offer of 3 November"
"""

import functools
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from params.arguments import validated
from params.files import read_text
from params.model import Model
from pipeline_definition.cost.training import CostError

Purchase = Literal["on_demand", "spot", "savings_plan", "training_plan"]
"""No commitment; what is left over; one year, nothing in advance; hosts reserved for a time, paid in advance."""
# What a forecast sets side by side. A training plan is no alternative that anybody could take at any time: it is the
# price of the jobs that name one.
PURCHASES: tuple[Purchase, ...] = ("on_demand", "spot", "savings_plan")
# What a run's page calls the price of an instance type that a job took from a training plan.
BY_PLAN = " by training plan"
PRICES_FILE = Path(__file__).with_name("prices.yaml")


class PriceSource(Model):
    says: str
    """The page or price list, and what remains to be confirmed."""
    date: date


class Price(Model):
    """Dollars for one instance-hour."""

    usd: float = Field(gt=0)
    """Never 0: a price that is not known is left out."""
    source: str
    """Key of `sources`."""


class PriceQuery(Model):
    """How the AWS price list knows a service's price."""

    service: str
    """Service code, such as AmazonS3."""
    usagetype: str = ""
    """Usage type without the region's prefix; empty: the attributes alone decide."""
    attributes: dict[str, str] = Field(default_factory=dict)
    unit: str = ""
    """Unit of the price; empty: any."""


class ServicePrice(Price):
    """Dollars for one unit of something that is not an instance-hour."""

    scale: float = Field(1.0, gt=0)
    """Units of the price list in one unit here: requests are counted in thousands."""
    query: PriceQuery
    """How `cost prices refresh` finds it."""


class Prices(Model):
    region: str
    date: date
    """When the file was last looked through."""
    sources: dict[str, PriceSource]
    instances: dict[str, dict[Purchase, Price]]
    """By type and way of buying; some types are sold by training plan alone."""
    services: dict[str, ServicePrice]

    def instance_hour_usd(self, instance_type: str) -> float:
        """Return dollars for one instance-hour on demand; raises CostError as `known` does."""
        return self.known(instance_type, "on_demand").usd

    def known(self, instance_type: str, purchase: Purchase) -> Price:
        """Return a price. Raises CostError that names the instance type and the fix where it is not known."""
        price = self.find(instance_type, purchase)
        if price is None:
            asks = f"prices refresh --add {instance_type}" if purchase == "on_demand" else "prices plan ARN"
            raise CostError(
                f"no {purchase.replace('_', ' ')} price of {instance_type} is known in {self.region}: `sd-pipeline cost"
                f" {asks}` asks AWS for it, `sd-pipeline cost prices set {instance_type} USD --way {purchase} --source"
                f" TEXT` takes yours"
            )
        return price

    def find(self, instance_type: str, purchase: Purchase) -> Price | None:
        """Return a price, or None where it is not known."""
        return self.instances.get(instance_type, {}).get(purchase)

    def in_region(self, region: str, instance_type: str, purchase: Purchase = "on_demand") -> float:
        """Return dollars for one instance-hour in a region, on demand where that price is not known; 0: neither is."""
        if region != self.region:
            return 0.0
        price = self.find(instance_type, purchase) or self.find(instance_type, "on_demand")
        return price.usd if price else 0.0

    def service_usd(self, name: str) -> float:
        """Return dollars for one unit of a service."""
        if name not in self.services:
            raise CostError(f"no price of {name} is known: known are {', '.join(self.services)}")
        return self.services[name].usd

    def by_hosts(self) -> Mapping[str, float]:
        """Return dollars for one instance-hour, also of reserved hosts: what a run's page takes."""
        called: dict[Purchase, str] = {"on_demand": "", "training_plan": BY_PLAN}
        return {
            name + called[way]: price.usd
            for name, prices in self.instances.items()
            for way, price in prices.items()
            if way in called
        }


def load_prices(path: Path = PRICES_FILE) -> Prices:
    """Read a price file. Raises CostError that names the file and the key."""
    return parse_prices(read_text(path, CostError), str(path))


@functools.lru_cache(maxsize=2)
def parse_prices(text: str, source: str) -> Prices:
    """Build the prices from YAML text; `source` names it in errors."""
    prices = validated(Prices, yaml.safe_load(text), source, CostError)
    entries = [price for ways in prices.instances.values() for price in ways.values()]
    used = {price.source for price in (*entries, *prices.services.values())}
    if unknown := sorted(used - set(prices.sources)):
        raise CostError(f"{source}: source {unknown[0]!r} is used and not described under sources")
    return prices
