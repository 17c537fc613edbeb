"""A business case as a document: three questions, each answered in words, then in numbers, then what they rest on.

Reads business_page.yaml, which has the words that do not depend on the numbers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from params.tables import table_beside
from pipeline_definition.cost.business_case import BUDGET_FACTORS, Answers
from pipeline_definition.cost.business_inputs import Candidate
from pipeline_definition.jobs.instances import instance
from pipeline_definition.pages.charts import Series, bars, curves, tornado
from pipeline_definition.pages.document import Chart, Document, Fact, Section, Table
from pipeline_definition.pages.formats import DASH, count, dollars, leaves, percent, short_count

CHART_POINTS = 40
FRACTIONS = (0.15, 0.25, 0.35, 0.45, 0.55, 0.65)
_WORDS: Final = table_beside(__file__)
NAMES: Final[Mapping[str, str]] = _WORDS["names"]
# What the JSON has of the answers and of a use, by the same names.
DERIVED = (
    *("defender_name", "defender_usd_per_year", "added_usd_per_year", "pays", "break_even_images", "cheapest_name"),
    *("return_on_investment", "payback_months", "justified_budget_usd"),
)
OF_A_USE = ("kind", "saving_usd_per_year", "hours_saved_per_year", "gain_usd_per_year")


def case_document(answers: Answers, votes: str = "") -> Document:
    """Return the document; every number in it is an input that it shows or is derived from those, or from `votes`."""
    sections = (_where(answers), _which(answers), _how_much(answers), _sensitivity(answers), _inputs(answers))
    said = " ".join((*in_words(answers), *filter(None, [votes])))
    return Document((answers.case.company,), "A text-to-image model of our own?", said, sections)


def case_json(answers: Answers) -> Mapping[str, Any]:
    return {
        "inputs": answers.case.model_dump(),
        "in_words": in_words(answers),
        "usd_per_generated_picture": answers.generation_usd_per_picture,
        "uses": [{"name": one.use.name, **{name: getattr(one, name) for name in OF_A_USE}} for one in answers.uses],
        "candidates": {
            name: {
                "usd_per_accepted_image": answers.usd_per_accepted_image(candidate),
                "gain_usd_per_year": answers.gain_of(candidate),
                "net_value_usd": answers.net_value_of(candidate),
            }
            for name, candidate in answers.case.candidates.items()
        },
        "net_present_value_usd": answers.net_present_value_usd(),
        "break_even_accepted_fraction": answers.turns,
        "swings": [asdict(swing) for swing in answers.swings],
        **{name: getattr(answers, name) for name in DERIVED},
    }


def in_words(answers: Answers) -> list[str]:
    """Return the answer to each of the three questions, in a sentence or two."""
    investment, defender = answers.case.investment, NAMES[answers.defender_name]
    best = max(answers.uses, key=lambda answer: answer.gain_usd_per_year)
    fraction, assumed = answers.turns["custom.accepted_fraction"], percent(answers.case.custom.accepted_fraction)
    turns = "no accepted fraction would change that"
    if fraction is not None:
        turns = f"it pays from {percent(fraction)} of its pictures accepted; {assumed} are assumed"
    verdict = f"{dollars(investment.budget_usd)} for a custom model {'pays' if answers.pays else 'does not pay'}"
    value = f"net present value {dollars(answers.net_present_value_usd())} over {investment.years} years"
    added_usd, alone = answers.added_usd_per_year, f"which alone brings {dollars(answers.defender_usd_per_year)} a year"
    adds = f"adds {dollars(added_usd)} a year" if added_usd > 0 else "adds nothing"
    back = f"paid back {_months(answers.payback_months)}" if answers.payback_months else "never paid back in that time"
    required = f"{investment.required_return_on_budget:g} x the budget in return"
    return [
        f"A model would bring {dollars(sum(one.gain_usd_per_year for one in answers.uses))} a year over today, most"
        f" where it {best.kind}: {best.use.name}.",
        f"A custom model {adds} over {defender}, {alone}.",
        f"{verdict}: {value} at {percent(investment.discount_rate)}, {back}; {turns}. Who asks for {required} can spend"
        f" {dollars(answers.justified_budget_usd)}.",
    ]


def _section(name: str, **parts: Any) -> Section:
    return Section(name, **_WORDS["sections"][name], **parts)


def _where(answers: Answers) -> Section:
    headers = ("Use", "It", *(f"{what} a year" for what in ("Pictures", "Saved", "New revenue", "Hours saved", "Gain")))
    answered = sorted(answers.uses, key=lambda answer: -answer.gain_usd_per_year)
    rows = []
    for one in answered:
        usd = map(dollars, (one.saving_usd_per_year, one.use.revenue_usd_per_year))
        hours, gain = count(one.hours_saved_per_year), dollars(one.gain_usd_per_year)
        rows.append((one.use.name, one.kind, count(one.use.images_per_year), *usd, hours, gain))
    gains = [(answer.use.name, answer.gain_usd_per_year) for answer in answered]
    chart = bars("gain", "Gain a year of each use", [(name, max(0.0, usd), dollars(usd)) for name, usd in gains])
    table = Table(headers, tuple(rows), frozenset(range(2, 7)))
    return _section("where", charts=(Chart("Gain a year", chart),), tables=(table,))


def _which(answers: Answers) -> Section:
    years, even = answers.case.investment.years, answers.break_even_images
    even_text, made = "none" if even is None else short_count(even), answers.case.generation
    hourly = f"{made.instance_type} at ${answers.endpoint_usd_per_hour:,.4g}/h"
    rate = f"{hourly} / {answers.pictures_per_hour:,.0f} pictures/h"
    drawn = f"{made.resolution_px} px, {made.inference_steps} steps, busy {percent(made.busy_fraction)}"
    facts = (
        Fact("one generated picture", f"${answers.generation_usd_per_picture:.4f}", f"{rate}, {drawn}"),
        Fact("what a custom model has to beat", NAMES[answers.defender_name]),
        Fact("it adds a year", dollars(answers.added_usd_per_year), "over that, times its chance to work"),
        Fact("our volume", count(answers.images), f"accepted pictures in {years} years"),
        Fact("break-even volume", even_text, "from which custom is cheaper than pretrained"),
        Fact("cheapest at our volume", NAMES[answers.cheapest_name]),
    )
    described = "Cost over accepted pictures, custom and pretrained"
    drawing = curves("break-even", described, _cost_lines(answers), "accepted pictures", in_dollars=True)
    chart = Chart("Cost over the years, the model included", drawing, ("custom", "pretrained"))
    candidates = answers.case.candidates
    headers, numeric = ("", *(name.replace("_", "-") for name in candidates)), range(1, len(candidates) + 1)
    table = Table(headers, tuple(_compared(answers)), frozenset(numeric))
    return _section("which", facts=facts, charts=(chart,), tables=(table,))


def _compared(answers: Answers) -> Iterator[tuple[str, ...]]:
    years, them = answers.case.investment.years, list(answers.case.candidates.values())
    for label, texts in {
        f"fixed cost, {years} years": [dollars(one.fixed_usd(years)) for one in them],
        "fraction accepted": [percent(one.accepted_fraction) for one in them],
        "an accepted picture": [dollars(answers.usd_per_accepted_image(one)) for one in them],
        f"our volume, {years} years": [dollars(answers.total_usd(one, answers.images)) for one in them],
        "gain a year over today": [dollars(answers.gain_of(one)) for one in them],
        "worth today, its cost paid": [dollars(answers.net_value_of(one)) for one in them],
        "over the best that takes less": [dollars(usd) for usd in _steps(answers, them)],
        "FID on our held-out pictures": [_score(one.fid) for one in them],
        "CLIP score": [_score(one.clip_score) for one in them],
    }.items():
        yield (label, *texts)


def _steps(answers: Answers, them: list[Candidate]) -> Iterator[float]:
    """Yield what each model is worth over the best before it; the first over doing nothing."""
    best = 0.0
    for one in them:
        value = answers.net_value_of(one)
        yield value - best
        best = max(best, value)


def _cost_lines(answers: Answers) -> list[Series]:
    top = 1.2 * max(answers.images, answers.break_even_images or 0.0, 1.0)
    places = [top * step / CHART_POINTS for step in range(CHART_POINTS + 1)]
    candidates = {"custom": answers.case.custom, "pretrained": answers.case.pretrained}
    return [Series(name, [(x, answers.total_usd(one, x)) for x in places]) for name, one in candidates.items()]


def _how_much(answers: Answers) -> Section:
    investment = answers.case.investment
    host = instance(investment.training_instance_type)
    hours = answers.compute_budget_usd / answers.training_instance_usd_per_hour
    required = f"net gain {investment.required_return_on_budget:g} x the budget, discounted"
    # A check on what the uses bring.
    expected = investment.return_usd_per_year_expected - investment.return_usd_per_year_today
    facts = (
        Fact("a custom model adds", dollars(answers.added_usd_per_year), f"a year over {NAMES[answers.defender_name]}"),
        Fact("net present value", dollars(answers.net_present_value_usd()), f"at {percent(investment.discount_rate)}"),
        Fact("payback", _months(answers.payback_months), "from the first dollar"),
        Fact("return on investment", f"{answers.return_on_investment:,.1f} x", f"over {investment.years} years"),
        Fact("budget that the return justifies", dollars(answers.justified_budget_usd), required),
        Fact("return that is expected", dollars(expected), "more a year, whatever it comes from"),
        Fact("compute in the budget", dollars(answers.compute_budget_usd), f"{percent(investment.compute_fraction)}"),
        Fact("which buys", f"{hours * host.ranks:,.0f} GPU-hours", f"{hours:,.0f} h of {host.name} on demand"),
    )
    described = "Dollars added less dollars spent, by month"
    drawing = curves("cumulative", described, [Series("", answers.cumulative())], "months", in_dollars=True)
    chart = Chart("Added less spent, not discounted", drawing)
    return _section("how-much", facts=facts, charts=(chart,))


def _sensitivity(answers: Answers) -> Section:
    value, swings = answers.net_present_value_usd(), answers.swings
    rows = [(swing.path.replace("_", " "), swing.low_usd, swing.high_usd) for swing in swings]
    drawing = tornado("tornado", "Net present value at both ends of each input's range", rows, value)
    title = f"Net present value at both ends of each input's range; the line is {dollars(value)}"
    parts = (0.25, 0.5, 0.75, 1.0)
    at_budgets = [[answers.net_present_value_usd(part, factor) for factor in BUDGET_FACTORS] for part in parts]
    budgets = tuple((percent(part), *map(dollars, usd)) for part, usd in zip(parts, at_budgets, strict=True))
    table = answers.table_of(FRACTIONS)
    fractions = tuple((percent(fraction), *map(dollars, row)) for fraction, row in zip(FRACTIONS, table, strict=True))
    turns = tuple(
        (path.replace("_", " "), "nowhere between 0 and 1" if fraction is None else f"{fraction:.1%}")
        for path, fraction in answers.turns.items()
    )
    tables = (
        Table(("Accepted: custom, and pretrained across", *map(percent, FRACTIONS)), fractions, frozenset(range(1, 7))),
        Table(("Fraction", "Where the verdict turns"), turns),
        Table(("Of it comes true", *(f"{one:g} x budget" for one in BUDGET_FACTORS)), budgets, frozenset({1, 2, 3})),
    )
    chart = Chart(title, drawing, ("at the high end", "at the low end"))
    return _section("sensitivity", charts=(chart,), tables=tables)


def _inputs(answers: Answers) -> Section:
    about = answers.case.ranges
    rows = []
    for name, text in leaves(answers.case.model_dump(exclude={"ranges"}, exclude_none=True)):
        known = about.get(name.replace(" › ", ".").replace(" ", "_"))
        low, high = (known.low, known.high) if known else (None, None)
        span = "" if low is None and high is None else f"{_score(low)} to {_score(high)}"
        rows.append((name, text, _unit(name), span, known.source if known else ""))
    host, usd = answers.case.generation.instance_type, f"${answers.endpoint_usd_per_hour:,.4g}"
    pictures = ("rates.yaml", "pictures in a paid hour", f"{answers.pictures_per_hour:,.0f}")
    derived = (("prices.yaml", f"{host}, an hour", usd), pictures)
    stated = Table(("Input", "Value", "Unit", "Range", "Source"), tuple(rows), wraps=True)
    tables = (stated, Table(("From", "What", "Value"), derived, frozenset({2})))
    return _section("inputs", tables=tables)


def _unit(name: str) -> str:
    last = name.rsplit(" › ", 1)[-1].replace(" ", "_")
    return next((unit for part, unit in _WORDS["units"].items() if part in last), "")


def _months(months: float | None) -> str:
    return "never within the years" if months is None else f"in {months:.1f} months"


def _score(value: float | None) -> str:
    return DASH if value is None else f"{value:g}"
