"""What the cost tests share: one parameter set's definition, built once, and changed price files."""

import functools
from pathlib import Path
from typing import Any

from params.settings import Settings, load_settings
from pipeline_definition.cost.prices import Prices, load_prices
from tests.pipeline_definition.definitions import definition_of

NAME = "octank_100gb"


@functools.cache
def settings() -> Settings:
    return load_settings(Path("params") / f"{NAME}.yaml")


def definition() -> dict[str, Any]:
    return definition_of(NAME)


def changed(**sections: dict[str, Any]) -> Settings:
    """Return the settings with some fields of some sections changed, checked again."""
    return Settings.model_validate(
        settings().model_dump(exclude_unset=True)
        | {name: getattr(settings(), name).model_dump() | fields for name, fields in sections.items()}
    )


def without_price(instance_type: str) -> Prices:
    prices = load_prices()
    kept = {name: entry for name, entry in prices.instances.items() if name != instance_type}
    return prices.model_copy(update={"instances": kept})
