"""`sd-pipeline cost forecast | actual | training | prices`, `plan`, `business-case`: what it costs, what it earns."""

import json
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from params.files import write_text
from params.settings import Settings, load_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.checks import definition_text
from pipeline_definition.commands.executions import RunOrFolder, artifacts_of
from pipeline_definition.commands.options import Reply, dim, parse_changes, say, shown
from pipeline_definition.cost.actual import RUN_TAG
from pipeline_definition.cost.price_list import API_REGION, refresh, training_plan_usd, with_price, write_prices
from pipeline_definition.cost.prices import PRICES_FILE, PURCHASES, Purchase, load_prices
from pipeline_definition.cost.training import training_cost
from pipeline_definition.errors import UsageError
from pipeline_definition.jobs.instances import every_type, gpu_types, nearest_of
from pipeline_definition.session import Target

app = typer.Typer(help="What a run costs: forecast, bill, arithmetic, prices.", no_args_is_help=True)
prices_app = typer.Typer(help="The dated price file behind the forecasts.", no_args_is_help=True)
app.add_typer(prices_app, name="prices")

PriceFile = Annotated[Path, typer.Option("--file", help="Price file.", show_default="the package's own")]
Rows = Annotated[
    int | None, typer.Option(help="Length of the url table.", show_default="data.rows of the parameter set")
]


@app.command("forecast")
def forecast_command(
    params: options.Params = options.DEFAULT_PARAMS,
    changes: options.Changes = None,
    rows: Rows = None,
    fsx_gib: Annotated[
        int | None, typer.Option(min=1200, help="FSx for Lustre storage.", show_default="holds the latents")
    ] = None,
    fsx_throughput: Annotated[int, typer.Option(help="MB/s per TiB of FSx for Lustre storage.")] = 125,
    storage_months: Annotated[float, typer.Option(min=0, help="How long S3 keeps the data.")] = 1.0,
) -> Reply:
    """Forecast GPU-hours, days and dollars of every step, and say where each figure comes from.

    Example: sd-pipeline cost forecast --params params/sd2_base.yaml --set TrainingInstanceCount=16
    """
    from pipeline_definition.cost.forecast import caption_note, forecast
    from pipeline_definition.cost.storage import Surroundings
    from pipeline_definition.cost.tables import forecast_json, forecast_notes, forecast_table

    settings, definition = _definition(params)
    around = Surroundings(fsx_gib, fsx_throughput, storage_months)
    asked = (definition, parse_changes(changes), around, rows)
    bill = forecast(settings, *asked)
    notes = filter(None, (*forecast_notes(bill), caption_note(bill, settings, *asked)))
    return Reply(forecast_json(bill), shown(forecast_table(bill)), *map(dim, notes))


@app.command()
def training(
    gpu_hours: Annotated[float, typer.Option(help="GPU-hours of the training.")],
    gpus_per_instance: Annotated[int, typer.Option(help="GPUs of one instance.")],
    price: Annotated[float, typer.Option("--price-per-instance-hour", help="Dollars for one instance-hour.")],
) -> Reply:
    """Compute what a number of GPU-hours costs, with the forecast's arithmetic.

    Example: sd-pipeline cost training --gpu-hours 13165 --gpus-per-instance 8 --price-per-instance-hour 40.96
    """
    cost = training_cost(gpu_hours, gpus_per_instance, price)
    line = (
        f"{gpu_hours:,.0f} GPU-hours / {gpus_per_instance} GPUs = {cost.instance_hours:,.1f} instance-hours"
        f" x ${price:,.2f} = ${cost.usd:,.0f}"
    )
    inputs = {"gpus_per_instance": gpus_per_instance, "usd_per_instance_hour": price}
    figures = {"gpu_hours": cost.gpu_hours, "instance_hours": cost.instance_hours, "usd": round(cost.usd, 2)}
    return Reply({**figures, "inputs": inputs}, line)


@app.command()
def actual(
    context: options.CommandContext,
    run: RunOrFolder = "latest",
    tag: Annotated[str, typer.Option(help="Cost allocation tag that holds the execution's ARN.")] = RUN_TAG,
    correct: Annotated[bool, typer.Option("--correct", help="Correct the next forecasts by this run.")] = False,
    runs: options.Runs = options.DEFAULT_RUNS,
) -> Reply:
    """Show what a run was billed beside its forecast, step by step, and what Cost Explorer has under its tag.

    Example: sd-pipeline cost actual latest --params params/sd2_base.yaml --correct
    """
    from pipeline_definition.cost.actual import COST_EXPLORER_REGION, billed
    from pipeline_definition.cost.corrections import write_corrections
    from pipeline_definition.report.bill import bill, bill_table, corrections
    from pipeline_definition.report.run import run_of

    left = artifacts_of(context, run, runs)
    expected, about = left.forecast or {}, left.execution
    whole = run_of(left)
    lines = tuple(bill(whole))
    said, found = [], None
    if whole.is_local:
        said.append("It ran on this machine: nothing was billed.")
    elif whole.start and whole.seconds is not None:
        client, end = Target(COST_EXPLORER_REGION).client("ce"), whole.start + timedelta(seconds=whole.seconds)
        found = billed(client, tag, str(about.get("arn")), whole.start, end)
        services = ", ".join(f"{name} ${usd:,.2f}" for name, usd in sorted(found.usd_by_service.items()))
        said.append(found.problem or f"Cost Explorer, by the tag {tag}: ${found.usd:,.2f} ({services})")
    if problem := expected.get("problem"):
        said.append(f"There is no forecast: {problem}")
    learnt = list(corrections(whole, context.settings, date.today())) if correct else []
    if learnt:
        write_corrections(learnt)
    said += [f"{one.program} on {one.instance_type}: hours x {one.hours_factor:.2f} from now on" for one in learnt]
    if correct and not learnt:
        said.append("Nothing to correct by: no job that was forecast has ended well.")
    value = {
        "lines": [asdict(line) for line in lines],
        "cost_explorer": asdict(found) if found else None,
        "corrections": [one.model_dump(mode="json") for one in learnt],
    }
    return Reply(value, shown(bill_table(lines)), *said)


@prices_app.command("refresh")
def refresh_prices(
    region: Annotated[str, typer.Option(help="Region of the prices.")] = "us-east-1",
    add: Annotated[list[str] | None, typer.Option(help="Another instance type; can be repeated.")] = None,
    gpus: Annotated[bool, typer.Option("--gpus", help="Also every GPU instance type that SageMaker has.")] = False,
    file: PriceFile = PRICES_FILE,
) -> None:
    """Ask the AWS price list API for every price and rewrite the price file.

    Example: sd-pipeline cost prices refresh --gpus
    """
    client, sought = Target(API_REGION).client("pricing"), gpu_types() if gpus else ()
    refreshed = refresh(load_prices(file), client, region, date.today(), add or (), sought)
    write_prices(refreshed.text, file)
    for line in (*refreshed.changed, *refreshed.kept):
        say(line)
    say(f"{len(refreshed.changed)} changed, {len(refreshed.kept)} kept: {file}")


@prices_app.command("set")
def set_price(
    instance_type: Annotated[str, typer.Argument(help="SageMaker instance type, such as ml.p5e.48xlarge.")],
    usd: Annotated[float, typer.Argument(min=0.0001, help="Dollars for one hour of one host.")],
    source: Annotated[str, typer.Option(help="Where the price comes from: it is shown with it.")],
    way: Annotated[Purchase, typer.Option(help="How the host is paid for.")] = "on_demand",
    file: PriceFile = PRICES_FILE,
) -> None:
    """Write a price that you know, with its source and today's date, into the price file.

    Example: sd-pipeline cost prices set ml.g7.48xlarge 20.5 --source "our account team, 3 November"
    """
    if instance_type not in every_type():
        raise UsageError(f"SageMaker has no {instance_type}; did you mean {nearest_of(instance_type, every_type())}?")
    write_prices(with_price(load_prices(file), instance_type, way, usd, source, date.today()), file)
    say(f"{instance_type} {way.replace('_', ' ')}: ${usd:g} an hour, {source}")


@prices_app.command("plan")
def price_of_plan(
    arn: Annotated[str, typer.Argument(help="ARN of your SageMaker training plan.")], file: PriceFile = PRICES_FILE
) -> None:
    """Ask what a training plan costs an hour and host, and write it into the price file.

    Example: sd-pipeline cost prices plan arn:aws:sagemaker:us-east-1:111122223333:training-plan/spring
    """
    region = arn.split(":")[3] if arn.count(":") == 5 else ""
    prices = load_prices(file)
    if region != prices.region:
        raise UsageError(f"{arn}: not the ARN of a training plan in {prices.region}, whose prices the file has")
    instance_type, usd = training_plan_usd(Target(region).client("sagemaker"), arn)
    write_prices(with_price(prices, instance_type, "training_plan", usd, f"fee of {arn}", date.today()), file)
    say(f"{instance_type}: ${usd:g} an hour and host by {arn}")


def plan(
    deadline: Annotated[str, typer.Option(help="Of the whole run: 36h, 10d, 2w, Friday or 2027-01-31.")],
    budget: Annotated[str, typer.Option(help="For the run without the endpoint: 40000, $5,000,000, 5M or 40k EUR.")],
    params: Annotated[
        list[Path],
        typer.Option(
            default_factory=lambda: [options.DEFAULT_PARAMS],
            help=f"{options.PARAMS_HELP} Several: the cheapest of them.",
            show_default=str(options.DEFAULT_PARAMS),
        ),
    ],
    changes: options.Changes = None,
    rows: Rows = None,
    exchange_rate: Annotated[
        float | None, typer.Option(min=1e-6, help="Dollars for one unit of the budget's currency.")
    ] = None,
    savings_plan: Annotated[bool, typer.Option("--savings-plan", help="Assume that a savings plan exists.")] = False,
    training_plan: Annotated[bool, typer.Option("--training-plan", help="Assume that hosts can be reserved.")] = False,
    training_only: Annotated[bool, typer.Option("--training-only", help="Apply the limits to Train only.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write a page with the chart here.")] = None,
) -> Reply:
    """Find the cheapest hosts of every step that meet a deadline and a budget; exit status 1 when none does.

    Example: sd-pipeline plan --deadline 14d --budget 150k --params params/sd2_base.yaml --out plan.html
    """
    from pipeline_definition.cost import plan_page
    from pipeline_definition.cost.limits import parse_days, parse_usd
    from pipeline_definition.cost.plan import plan as plan_of
    from pipeline_definition.pages.html import to_html

    days, usd = parse_days(deadline, datetime.now().astimezone()), parse_usd(budget, exchange_rate)
    wanted: dict[Purchase, bool] = {"savings_plan": savings_plan, "training_plan": training_plan}
    purchases = (*PURCHASES[:2], *(way for way, is_there in wanted.items() if is_there))
    fixed = parse_changes(changes)
    plans = []
    for path in params:
        settings, definition = _definition(path)
        found = plan_of(settings, definition, fixed, days, usd, purchases, training_only, rows)
        plans.append((found, path, settings, definition))
    plans.sort(key=lambda one: one[0].rank)
    planned, path, settings, definition = plans[0]
    values = {item["Name"]: item.get("DefaultValue") for item in definition["Parameters"]}
    how = (plan_page.start_line(planned, str(path), values), *plan_page.set_lines(planned, settings.train.spot))
    if out:
        write_text(out, to_html(plan_page.plan_document(planned, settings.pipeline_name, *how)))
    sets = plan_page.set_table({str(one): found for found, one, *_ in plans})
    compared = (shown(sets), dim(plan_page.WORDS["other_models"]), "") if len(plans) > 1 else ()
    tables = (shown(plan_page.step_table(planned)), "", shown(plan_page.option_table(planned)))
    said = (*compared, plan_page.verdict(planned), *how, "", *tables, *map(dim, plan_page.WORDS["notes"]))
    return Reply(plan_page.plan_json(planned) | {"start": list(how)}, *said, status=0 if planned.best else 1)


def business_case(
    inputs: Annotated[Path | None, typer.Option(help="Inputs in YAML.", show_default="the worked example")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the document and the page.")] = Path("business_case"),
    votes: Annotated[
        Path | None, typer.Option(help="Blind votes on both models: what people do not prefer is not credited.")
    ] = None,
    voted: Annotated[tuple[str, str], typer.Option(help="What the votes call the custom and the pretrained model.")] = (
        "trained",
        "generic",
    ),
) -> Reply:
    """Answer a decision maker's three questions from a file of inputs, as Markdown and as a page with charts.

    Example: sd-pipeline business-case --inputs my_case.yaml --out business_case
    """
    from pipeline_definition.cost import business_case, business_inputs, business_page
    from pipeline_definition.pages import html, markdown
    from pipeline_definition.prompting.preference import preference_of
    from pipeline_definition.prompting.votes import VoteFile

    case, verdict = business_inputs.load_case(inputs or business_inputs.EXAMPLE_FILE), ""
    if votes:
        is_preferred, verdict = preference_of(VoteFile(votes).votes, *voted)
        if not is_preferred:
            verdict += " It is credited with no more accepted pictures than the pretrained one."
            fraction = min(case.custom.accepted_fraction, case.pretrained.accepted_fraction)
            case = case.changed("custom.accepted_fraction", fraction)
    answers = business_case.answers_of(case)
    document = business_page.case_document(answers, verdict)
    write_text(out / "business_case.html", html.to_html(document))
    write_text(out / "business_case.md", markdown.to_markdown(document, "business_case.html"))
    files = f"{out / 'business_case.md'} and {out / 'business_case.html'}"
    said = (*business_page.in_words(answers), *filter(None, [verdict]))
    return Reply({**business_page.case_json(answers), "votes": verdict or None}, *said, files)


def _definition(params: Path) -> tuple[Settings, dict[str, Any]]:
    settings = load_settings(params)
    return settings, json.loads(definition_text(settings))
