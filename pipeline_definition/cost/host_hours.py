"""What one hour of a training host costs: Train reads it from the definition, which itself knows no price.

Reads a parameter set and the price file; writes nothing.

    sd-pipeline parameters --params params/sd2_base.yaml
"""

from params.phases import Phase
from params.settings import Settings
from pipeline_definition.cost.prices import Purchase, load_prices


def priced(settings: Settings) -> Settings:
    """Return the parameter set with the price of each phase's hosts filled in where it names none.

    The parameter set's own prices stay. A price that is not known stays 0, and so does every price on this machine.
    """
    if settings.local is not None:
        return settings
    sections = zip((settings.train, *settings.later_phases), settings.phases, strict=True)
    train, *later = (
        section.model_copy(update={"instance_hour_usd": training_price_usd(settings, phase)})
        for section, phase in sections
    )
    return settings.model_copy(update={"train": train, "later_phases": tuple(later)})


def training_price_usd(settings: Settings, phase: Phase) -> float:
    """Return the dollars of one host-hour of a phase: the parameter set's own, else the price file's; 0: not known."""
    if phase.train.instance_hour_usd or settings.local is not None:
        return phase.train.instance_hour_usd
    price_usd, encoders = host_price_usd(settings, phase, phase.train.job.instance_type), settings.encoders
    if encoders is None or not price_usd:
        return price_usd
    # Its share of the encoders in the same job.
    encoders_usd = encoders.instance_count * list_price_usd(settings, encoders.instance_type)
    return price_usd + encoders_usd / phase.train.job.instance_count


def host_price_usd(settings: Settings, phase: Phase, instance_type: str) -> float:
    """Return the price of one host-hour of a phase that begins on a type: its training plan's, else the list price.

    Of types that SageMaker chooses from, it is the dearest, so that a budget is kept on any; 0: one is not known.
    """
    if phase.train.job.training_plan:
        prices = load_prices()
        reserved = prices.find(instance_type, "training_plan") if prices.region == settings.account.region else None
        return reserved.usd if reserved else 0.0
    chosen_by_sagemaker = not settings.train.spot and settings.encoders is None
    others = phase.train.job.instance_preferences if chosen_by_sagemaker else ()
    usd = [list_price_usd(settings, name) for name in (instance_type, *(other.instance_type for other in others))]
    return max(usd) if all(usd) else 0.0


def list_price_usd(settings: Settings, instance_type: str) -> float:
    """Return the price file's price in the run's region, on demand where no spot price is known; 0: none."""
    return load_prices().in_region(settings.account.region, instance_type, purchase_of(settings))


def purchase_of(settings: Settings) -> Purchase:
    return "spot" if settings.train.spot else "on_demand"
