"""`sd-pipeline prompt-study`: which words, guidance, steps and sampler draw what the prompt says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pipeline_definition.commands import options
from pipeline_definition.commands.options import EndpointName, Variant, answer, console, endpoint_of, say
from pipeline_definition.errors import UsageError

if TYPE_CHECKING:
    from pipeline_definition.prompting.study_results import RankedSetting

N = TypeVar("N", int, float)

DEFAULT_GUIDANCE = "1,3,7.5"
DEFAULT_STEPS = "10,25"


@options.with_context
def prompt_study(
    context: options.CommandContext,
    prompts: Annotated[Path, typer.Option("--prompts", help="File of prompts, one per line.")],
    modifier: Annotated[
        list[str] | None,
        typer.Option("--modifier", help="Words to try, such as 'oil painting' or 'a photo of {prompt}'; repeatable."),
    ] = None,
    guidance: Annotated[str, typer.Option("--guidance", help="Guidance scales, comma-separated.")] = DEFAULT_GUIDANCE,
    steps: Annotated[str, typer.Option("--steps", help="Step counts, comma-separated.")] = DEFAULT_STEPS,
    sampler: Annotated[str, typer.Option("--sampler", help="Samplers, comma-separated.")] = "dpm++,ddim,euler",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Pictures per prompt and setting.")] = 2,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0, help="First seed.")] = 0,
    clients: Annotated[int, typer.Option("--clients", min=1, max=64, help="Concurrent requests.")] = 8,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the study; an interrupted study resumes there.")
    ] = Path("runs/prompt-study"),
    evaluator: Annotated[
        Path | None, typer.Option("--evaluator", help="Folder with clip/; default: the parameter set's.")
    ] = None,
    endpoint: EndpointName = None,
    variant: Variant = None,
    as_json: options.AsJson = False,
) -> None:
    """Draw every prompt with every modifier, guidance, step count and sampler; score, rank, and show what works.

    Example: sd-pipeline prompt-study --prompts prompts.txt --modifier "oil painting" --local --params params/local.yaml
    """
    from rich.progress import Progress

    from pipeline_definition.prompting.clip_scores import evaluator_folder
    from pipeline_definition.prompting.study import PAGE_FILE, Study
    from pipeline_definition.prompting.study_plan import Grid, make_plan, read_prompts
    from pipeline_definition.session import Target

    grid = Grid(
        tuple(modifier or ()),
        _numbers("--guidance", guidance, float),
        _numbers("--steps", steps, int),
        tuple(name.strip() for name in sampler.split(",") if name.strip()),
    )
    plan = make_plan(read_prompts(prompts), seeds, first_seed, grid)
    folder = evaluator or evaluator_folder(context.settings, Target(context.settings.account.region), out)
    study = Study(plan, endpoint_of(context, endpoint, variant), folder, out, clients)
    with Progress(console=console) as progress:
        drawing = progress.add_task("drawing", total=len(plan.trials))
        results = study.run(lambda count: progress.advance(drawing, count))
    _print_place("best", results.best)
    _print_place("cheapest as good", results.cheapest)
    _print_place("worst", results.worst)
    places = {"best": results.best, "cheapest": results.cheapest, "worst": results.worst}
    made = {"page": str(out / PAGE_FILE)} | {name: asdict(entry) for name, entry in places.items()}
    answer(out / PAGE_FILE, made, as_json)


def _numbers(option: str, text: str, kind: Callable[[str], N]) -> tuple[N, ...]:
    try:
        return tuple(kind(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(f"{option} {text}: write numbers with commas between them, such as 1,3,8") from None


def _print_place(name: str, entry: RankedSetting) -> None:
    score = entry.score
    interval = f"{score.mean:.3f} ({score.low:.3f} to {score.high:.3f})"
    say(f"{name:17} {interval}  {entry.setting.label}")
