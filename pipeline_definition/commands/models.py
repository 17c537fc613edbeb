"""`sd-pipeline models ...`, and `production | promote | rollback | scale`: from what passed the gate to what serves."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from params.settings import Settings, load_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.checks import Stack, filled
from pipeline_definition.commands.options import FittedTable, Reply, say
from pipeline_definition.infrastructure.stack import Infrastructure
from pipeline_definition.models import package_record
from pipeline_definition.models.autoscaling import Autoscaling
from pipeline_definition.models.promote import Production, Serving
from pipeline_definition.models.registry import PRETRAINED_SUFFIX, ModelPackage, PackageGroup, register_pretrained
from pipeline_definition.models.versions import trend_table, versions_of
from pipeline_definition.pages.formats import number, plain
from pipeline_definition.session import Target

app = typer.Typer(help="The model registry: what passed the gate, and what may go to production.", no_args_is_help=True)

PACKAGE_HELP = "Model package: its ARN, its version, `latest` or `pretrained`."
Package = Annotated[str, typer.Argument(help=PACKAGE_HELP)]
Reason = Annotated[str, typer.Option(help="Kept with the package.")]
Out = Annotated[Path | None, typer.Option(help="Also fetch metrics, manifests, training record and pictures here.")]


ProductionStack = Annotated[str, typer.Option("--stack", help="Stack that has the production endpoint.")]
Share = Annotated[float, typer.Option(help="Share of the requests that the second variant serves.")]


@app.command("list")
def list_packages(context: options.CommandContext) -> Reply:
    """List the model packages, newest first.

    Example: sd-pipeline models list --local --params params/local.yaml
    """
    packages = PackageGroup(context.target, context.settings.registry.group).list()
    rows = [
        (
            *(str(one.version), one.status, one.created),
            *(plain(number(one.metadata.get(name))) for name in ("fid", "clip_score")),
            ", ".join(text.split(" /")[0] for name, text in one.metadata.items() if name.startswith("gate_")),
            one.metadata.get("dataset", ""),
        )
        for one in packages
    ]
    headers = ("version", "status", "created", "FID", "CLIP score", "gate", "data set")
    return Reply([asdict(package) for package in packages], FittedTable(headers, rows, {3, 4}))


@app.command()
def show(context: options.CommandContext, package: Package = "latest", out: Out = None) -> Reply:
    """Show a model package: gate, metrics over the versions, data, settings, code, images, cost, and its pictures.

    Example: sd-pipeline models show latest --out package
    """
    shown, files = find(context.settings, context.target, package), package_record.PackageFiles(context.target)
    fetched = files.fetch(shown, out) if out else []
    record = files.record(shown)
    grid = Table(Column(style="dim"), Column(overflow="fold"), box=None, pad_edge=False, show_header=False)
    for name, text in package_record.facts(record):
        grid.add_row(name, text)
    evaluated = {"metrics": record.metrics, "data_manifest": record.data_manifest}
    versions = versions_of(context.target, shown.arn.split("/")[-2])
    told = {**asdict(shown), **evaluated, "training_usd": record.training_usd, "versions": versions}
    return Reply(told, grid, options.shown(trend_table(versions)), *([f"{len(fetched)} files in {out}"] if out else ()))


@app.command()
def compare(context: options.CommandContext, first: Package, second: Package = "latest") -> Reply:
    """Compare two model packages: each metric with a verdict on the second, and every difference.

    Example: sd-pipeline models compare 3 latest
    """
    files = package_record.PackageFiles(context.target)
    records = [files.record(find(context.settings, context.target, package)) for package in (first, second)]
    rows = package_record.compare(*records)
    shown = FittedTable(("", first, second, "the second is"), ((r.name, r.first, r.second, r.verdict) for r in rows))
    return Reply([row._asdict() for row in rows], shown)


@app.command()
def approve(
    context: options.CommandContext, package: Package, reason: Reason = "approved on the command line"
) -> Reply:
    """Approve a model package for production, which starts its promotion.

    Example: sd-pipeline models approve latest --reason "sheet looked at, FID 12"
    """
    return _decided(context, package, "Approved", reason)


@app.command()
def reject(context: options.CommandContext, package: Package, reason: Reason = "rejected on the command line") -> Reply:
    """Reject a model package.

    Example: sd-pipeline models reject 3 --reason "colours are off"
    """
    return _decided(context, package, "Rejected", reason)


@app.command("register-pretrained")
def register(context: options.CommandContext, stack: Stack = None) -> Reply:
    """Register the pretrained model at data.pretrained_uri, to deploy it alone or next to your own.

    Example: sd-pipeline models register-pretrained --stack sd-pipeline
    """
    package = register_pretrained(filled(context.settings, stack), context.target)
    return Reply(asdict(package), package.arn)


def find(settings: Settings, target: Target, package: str) -> ModelPackage:
    """Return a package given as its ARN, its version, `latest`, or `pretrained`: the newest that was registered so."""
    group = settings.registry.group
    if package == "pretrained":
        return PackageGroup(target, group + PRETRAINED_SUFFIX).show("latest")
    return PackageGroup(target, group).show(package)


def _decided(context: options.CommandContext, package: str, status: str, reason: str) -> Reply:
    decided = PackageGroup(context.target, context.settings.registry.group).decide(package, status, reason)
    return Reply(asdict(decided), f"{decided.arn} is now {decided.status}")


def production(context: options.CommandContext, stack: ProductionStack = "sd-pipeline") -> Reply:
    """Show which model packages serve in production, and which configuration `rollback` would restore.

    Example: sd-pipeline production
    """
    _, place = _production(context, stack)
    if serving := place.serving():
        return Reply(asdict(serving), *_lines_about(serving))
    return Reply(None, "nothing was promoted yet; `sd-pipeline models approve` does")


def promote(
    context: options.CommandContext,
    package: Package = "latest",
    beside: Annotated[str | None, typer.Option(help=f"A second variant. {PACKAGE_HELP}")] = None,
    share: Share = 0.1,
    stack: ProductionStack = "sd-pipeline",
) -> Reply:
    """Promote an approved model package: blue/green with a canary; an alarm rolls back to the former model.

    An approval starts this automatically; run it by hand to promote again, or to serve two models side by side.

    Example: sd-pipeline promote latest --beside pretrained --share 0.1
    """
    settings, place = _production(context, stack)
    second = find(settings, context.target, beside).arn if beside else ""
    return _followed(place, place.promote(find(settings, context.target, package).arn, second, share))


def rollback(context: options.CommandContext, stack: ProductionStack = "sd-pipeline") -> Reply:
    """Return the production endpoint to what it served before, at once.

    Example: sd-pipeline rollback
    """
    _, place = _production(context, stack)
    return _followed(place, place.rollback())


def scale(
    endpoint: Annotated[str | None, typer.Option(help="Its name; default: the parameter set's.")] = None,
    params: options.Params = options.DEFAULT_PARAMS,
) -> Reply:
    """Apply endpoint.scaling of the parameter set to the endpoint on AWS; max_instances 0 removes scaling.

    Example: sd-pipeline scale --params params/octank_100gb.yaml
    """
    settings = load_settings(params)
    name = endpoint or settings.endpoint.name
    variants = Autoscaling(Target(settings.account.region), name).apply(settings.endpoint)
    lines = [
        f"{name}/{one.variant}: {one.min_instances} to {one.max_instances} hosts, by {', '.join(one.policies)}"
        for one in variants
    ]
    return Reply([asdict(variant) for variant in variants], *(lines or [f"endpoint {name} is not scaled"]))


def _production(context: options.CommandContext, stack: str) -> tuple[Settings, Production]:
    settings = context.settings
    if context.local:
        from pipeline_definition.local.promotion import OUTPUTS

        return settings, Production(context.target, OUTPUTS, say, context.poll_s)
    outputs = Infrastructure(context.target, stack).outputs()
    registry = settings.registry.model_copy(update={"group": outputs["ModelPackageGroupName"]})
    return settings.model_copy(update={"registry": registry}), Production(context.target, outputs, say, context.poll_s)


def _followed(place: Production, execution: str) -> Reply:
    say(f"started {execution}")
    serving = place.follow(execution)
    return Reply({"execution_arn": execution, "serving": asdict(serving)}, *_lines_about(serving))


def _lines_about(serving: Serving) -> Iterator[str]:
    yield f"{serving.endpoint} is {serving.status} {serving.reason}".rstrip()
    total = sum(variant.weight for variant in serving.variants) or 1.0
    for variant in serving.variants:
        package = variant.package or "a model without a package"
        yield f"  {variant.variant}: {package}, {variant.weight / total:.0%} of the requests, {variant.instances}"
    yield f"  rollback goes to: {serving.former or 'nothing, it is the first'}"
