"""A business case as a document: three questions, each with its answer, tables and charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline_definition.cost.business_case import BUDGET_FACTORS, REALISED, Answers
from pipeline_definition.jobs.instances import instance
from pipeline_definition.pages.charts import Series, bars, curves
from pipeline_definition.pages.document import Chart, Document, Fact, Section, Table
from pipeline_definition.pages.formats import DASH, count, dollars, leaves, percent, short_count

CHART_POINTS = 40
# What the JSON has of the answers and of a use, by the same names.
DERIVED = (
    *("break_even_images", "custom_is_cheaper", "gain_usd_per_year", "return_on_investment", "payback_months"),
    *("break_even_realised", "justified_budget_usd"),
)
OF_A_USE = ("kind", "saving_usd_per_year", "hours_saved_per_year", "gain_usd_per_year")


def case_document(answers: Answers) -> Document:
    """Return the document; every number in it is an input that it shows or is derived from those."""
    sections = (_where(answers), _which(answers), _how_much(answers), _sensitivity(answers), _inputs(answers))
    return Document((answers.case.company,), "A text-to-image model of our own?", _lead(answers), sections)


def case_json(answers: Answers) -> Mapping[str, Any]:
    """Return the derived numbers."""
    return {
        "inputs": answers.case.model_dump(),
        "usd_per_generated_picture": answers.generation_usd_per_picture,
        "uses": [
            {"name": answer.use.name, **{name: getattr(answer, name) for name in OF_A_USE}} for answer in answers.uses
        ],
        "usd_per_accepted_image": {
            "custom": answers.usd_per_accepted_image(answers.case.custom),
            "pretrained": answers.usd_per_accepted_image(answers.case.pretrained),
        },
        "net_present_value_usd": answers.net_present_value_usd(),
        **{name: getattr(answers, name) for name in DERIVED},
    }


def _lead(answers: Answers) -> str:
    investment = answers.case.investment
    verdict = "pays" if answers.net_present_value_usd() > 0 else "does not pay"
    choice = "a custom model" if answers.custom_is_cheaper else "the open pretrained model"
    best = max(answers.uses, key=lambda answer: answer.gain_usd_per_year)
    return (
        f"{dollars(investment.budget_usd)} for {dollars(answers.gain_usd_per_year)} more a year {verdict}: net present"
        f" value {dollars(answers.net_present_value_usd())} over {investment.years} years at"
        f" {percent(investment.discount_rate)}, paid back {_months(answers.payback_months)}."
        f" It gains most where it {best.kind}: {best.use.name}. At this volume {choice} is the cheaper one."
    )


def _where(answers: Answers) -> Section:
    headers = ("Use", "It", *(f"{what} a year" for what in ("Pictures", "Saved", "New revenue", "Hours saved", "Gain")))
    answered = sorted(answers.uses, key=lambda answer: -answer.gain_usd_per_year)
    rows = []
    for one in answered:
        usd = map(dollars, (one.saving_usd_per_year, one.use.revenue_usd_per_year))
        hours, gain = count(one.hours_saved_per_year), dollars(one.gain_usd_per_year)
        rows.append((one.use.name, one.kind, count(one.use.images_per_year), *usd, hours, gain))
    gains = [(answer.use.name, answer.gain_usd_per_year) for answer in answered]
    chart = bars("gain", "Gain a year of each use", [(name, [(max(0.0, usd), dollars(usd))]) for name, usd in gains])
    title = "1. Where would it cut cost, speed up production or grow revenue?"
    lead = "Saved: pictures x (cost of one today - cost of one accepted picture of the better model)."
    table = Table(headers, tuple(rows), frozenset(range(2, 7)))
    return Section("where", title, lead, charts=(Chart("Gain a year", chart),), tables=(table,))


def _which(answers: Answers) -> Section:
    years, even = answers.case.investment.years, answers.break_even_images
    even_text, made = "none" if even is None else short_count(even), answers.case.generation
    hourly = f"{made.instance_type} at ${answers.endpoint_usd_per_hour:,.4g}/h"
    rate = f"{hourly} / {answers.pictures_per_hour:,.0f} pictures/h"
    drawn = f"{made.resolution_px} px, {made.inference_steps} steps, busy {percent(made.busy_fraction)}"
    facts = (
        Fact("one generated picture", f"${answers.generation_usd_per_picture:.4f}", f"{rate}, {drawn}"),
        Fact("break-even volume", even_text, f"accepted pictures in {years} years"),
        Fact("our volume", count(answers.images), f"in {years} years"),
        Fact("cheaper at our volume", "custom" if answers.custom_is_cheaper else "pretrained"),
    )
    described = "Cost over accepted pictures, custom and pretrained"
    drawing = curves("break-even", described, _cost_lines(answers), "accepted pictures", in_dollars=True)
    chart = Chart("Cost over the years, the model included", drawing, ("custom", "pretrained"))
    headers = ("", "custom", "pretrained")
    table = Table(headers, tuple(_compared(answers)), frozenset({1, 2}))
    lead = (
        "An accepted picture costs (generation + review) / fraction accepted. Break-even is the difference in fixed"
        " cost over the difference in cost of an accepted picture. The fractions decide: measure them with both models"
        " on your own prompts before you commit."
    )
    return Section("which", "2. A custom model or the open pretrained one?", lead, facts, (chart,), (table,))


def _compared(answers: Answers) -> Iterator[tuple[str, ...]]:
    years, both = answers.case.investment.years, (answers.case.custom, answers.case.pretrained)
    for label, texts in {
        f"fixed cost, {years} years": [dollars(one.fixed_usd(years)) for one in both],
        "fraction accepted": [percent(one.accepted_fraction) for one in both],
        "an accepted picture": [dollars(answers.usd_per_accepted_image(one)) for one in both],
        f"our volume, {years} years": [dollars(answers.total_usd(one, answers.images)) for one in both],
        "FID on our held-out pictures": [_score(one.fid) for one in both],
        "CLIP score": [_score(one.clip_score) for one in both],
    }.items():
        yield (label, *texts)


def _cost_lines(answers: Answers) -> list[Series]:
    top = 1.2 * max(answers.images, answers.break_even_images or 0.0, 1.0)
    places = [top * step / CHART_POINTS for step in range(CHART_POINTS + 1)]
    candidates = {"custom": answers.case.custom, "pretrained": answers.case.pretrained}
    return [Series(name, [(x, answers.total_usd(one, x)) for x in places]) for name, one in candidates.items()]


def _how_much(answers: Answers) -> Section:
    investment = answers.case.investment
    host = instance(investment.training_instance_type)
    hours = answers.compute_budget_usd / answers.training_instance_usd_per_hour
    part = answers.break_even_realised
    required = f"net gain {investment.required_return_on_budget:g} x the budget, discounted"
    facts = (
        Fact("gain a year", dollars(answers.gain_usd_per_year), "expected return less today's"),
        Fact("the uses above bring", dollars(answers.uses_usd_per_year), "a year, as a check on it"),
        Fact("return on investment", f"{answers.return_on_investment:,.1f} x", f"over {investment.years} years"),
        Fact("payback", _months(answers.payback_months), "from the first dollar"),
        Fact("net present value", dollars(answers.net_present_value_usd()), f"at {percent(investment.discount_rate)}"),
        Fact("gain that has to come true", DASH if part is None else percent(part), "for a net present value of zero"),
        Fact("budget that the return justifies", dollars(answers.justified_budget_usd), required),
        Fact("compute in the budget", dollars(answers.compute_budget_usd), f"{percent(investment.compute_fraction)}"),
        Fact("which buys", f"{hours * host.ranks:,.0f} GPU-hours", f"{hours:,.0f} h of {host.name} on demand"),
    )
    described = "Dollars gained less dollars spent, by month"
    drawing = curves("cumulative", described, [Series("", answers.cumulative())], "months", in_dollars=True)
    lead = "Gain = return expected - return today. The budget is spent at the beginning; the gain comes month by month."
    chart = Chart("Gained less spent, not discounted", drawing)
    return Section("how-much", "3. What compute budget does the return justify?", lead, facts, (chart,))


def _sensitivity(answers: Answers) -> Section:
    headers = ("Of the gain comes true", *(f"{factor:g} x budget" for factor in BUDGET_FACTORS))
    rows = tuple(
        (percent(realised), *(dollars(answers.net_present_value_usd(realised, factor)) for factor in BUDGET_FACTORS))
        for realised in REALISED
    )
    described = "Net present value over the part of the gain that comes true"
    points = [(100 * part, answers.net_present_value_usd(part)) for part in (0.0, *REALISED)]
    drawing = curves("sensitivity", described, [Series("", points)], "per cent of the gain", in_dollars=True)
    table = Table(headers, rows, frozenset({1, 2, 3}))
    lead = "Net present value when less of the gain comes true, or when it costs half or twice as much."
    return Section("sensitivity", "What if?", lead, (), (Chart("Net present value", drawing),), (table,))


def _inputs(answers: Answers) -> Section:
    rows = tuple(leaves(answers.case.model_dump()))
    host, usd = answers.case.generation.instance_type, f"${answers.endpoint_usd_per_hour:,.4g}"
    pictures = ("rates.yaml", "pictures in a paid hour", f"{answers.pictures_per_hour:,.0f}")
    derived = (("prices.yaml", f"{host}, an hour", usd), pictures)
    tables = (Table(("Input", "Value"), rows, wraps=True), Table(("From", "What", "Value"), derived, frozenset({2})))
    return Section("inputs", "Inputs", "Everything above is derived from these.", tables=tables)


def _months(months: float | None) -> str:
    return "never within the years" if months is None else f"in {months:.1f} months"


def _score(value: float | None) -> str:
    return DASH if value is None else f"{value:g}"
