"""`sd-pipeline prompt | playground | compare | prompt-study`: pictures, alone, side by side, or by the grid.

A picture goes into a file and the terminal; the others leave a page.
"""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.progress import Progress

from params.families import FLOW
from params.files import write_text
from params.programs import ServeArguments
from pipeline_definition.commands import options
from pipeline_definition.commands.options import EndpointName, Reply, Variant, console, endpoint_of, errors, say
from pipeline_definition.errors import UsageError
from pipeline_definition.pages.formats import DASH
from pipeline_definition.prompting.clip_scores import evaluator_folder
from pipeline_definition.session import Target

if TYPE_CHECKING:
    # Seconds to import.
    from pipeline_definition.prompting.comparison import Contender

N = TypeVar("N", int, float)

Show = Literal["auto", "blocks", "none"]
"""How the terminal shows a picture."""
VOTES = options.DEFAULT_RUNS / "votes" / "votes.jsonl"
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
Endpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        help="Name or address; of a single one, the variants are compared. Default: the parameter set's. Repeatable.",
    ),
]


def prompt(
    context: options.CommandContext,
    text: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture file: .png, .jpg or .webp.")] = Path("picture.png"),
    negative: Annotated[str | None, typer.Option(help="What the picture should not show.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same picture.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddim, dpm++ or euler.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Draw with this adapter (LoRA) of the model.")] = None,
    adapter_scale: Annotated[float | None, typer.Option(help="How much it counts: 1.")] = None,
    images: Annotated[int | None, typer.Option(help="Number of pictures, from consecutive seeds.")] = None,
    show: Annotated[Show, typer.Option(help="How to show it in the terminal.")] = "auto",
    endpoint: EndpointName = None,
    variant: Variant = None,
    as_json: options.AsJson = False,
) -> Reply:
    """Ask the endpoint for a picture.

    Example: sd-pipeline prompt "a small red circle at the top on a blue background" --local --params params/local.yaml
    """
    form = FORMATS.get(out.suffix.lower())
    if form is None:
        raise UsageError(f"--out {out}: a picture ends with one of {', '.join(FORMATS)}")
    request: dict[str, Any] = {"prompt": text, "negative_prompt": negative, "format": form}
    request |= {"seed": seed, "num_images": images, "width": width, "height": height}
    request |= {"guidance_scale": guidance, "steps": steps, "sampler": sampler}
    request |= {"adapter": adapter, "adapter_scale": adapter_scale}
    drawn = []
    for number, picture in enumerate(endpoint_of(context, endpoint, variant).draw(request).pictures, 1):
        path = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.content)
        _show(picture.content, "none" if as_json else show)
        for note in picture.notes:
            errors.print(f"note: {note}", highlight=False)
        drawn.append({"path": str(path), "seed": picture.seed, "flagged": picture.flagged})
        say(f"{path}  seed {picture.seed}")
    return Reply(drawn)


def _show(content: bytes, show: Show) -> None:
    """Show a picture where a person looks at a terminal with colours; `--show blocks` shows it anyway."""
    from pipeline_definition.prompting.terminal import has_colours, rendered

    if show == "blocks" or (show == "auto" and sys.stdout.isatty() and has_colours(os.environ)):
        sys.stdout.write(rendered(content, shutil.get_terminal_size().columns))
        sys.stdout.flush()


def playground(
    context: options.CommandContext,
    endpoint: EndpointName = None,
    variant: Variant = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Another endpoint, or /VARIANT of this one, for side by side; repeatable.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="File of example prompts, as prompt-study reads it.")] = None,
    host: options.Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: the first free one from 7860 on.")] = 0,
    open_browser: options.OpenBrowser = False,
) -> None:
    """Open a page for drawing: prompt, negative prompt, sliders, seeds, history, two settings side by side.

    Example: sd-pipeline playground --local --params params/local.yaml --open
    """
    listen(host, port).close()
    endpoints = [endpoint_of(context, endpoint, variant)]
    for name in against or ():
        other, other_variant = (endpoint, name[1:]) if name.startswith("/") else (name, None)
        endpoints.append(endpoint_of(context, other, other_variant))

    # Seconds to import: here, not at the top.
    from pipeline_definition.prompting.playground import Playground, launch
    from pipeline_definition.prompting.study_plan import read_prompts

    limits = ServeArguments(**context.settings.endpoint.model_dump(include=set(ServeArguments.model_fields)))
    samplers = _samplers(context, of_flow="dpm++,euler").split(",")
    with tempfile.TemporaryDirectory(prefix="playground-") as folder:
        page = Playground(endpoints, limits, Path(folder), samplers, list(read_prompts(prompts)) if prompts else ())
        launch(page, host, port, open_browser)


def compare(
    context: options.CommandContext,
    prompts: Annotated[list[str] | None, typer.Argument(help="What to draw; can be repeated.")] = None,
    prompt_file: Annotated[Path | None, typer.Option("--prompts", help="File of prompts, one per line.")] = None,
    endpoint: Endpoints = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only this variant; can be repeated.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("comparison.html"),
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    images: Annotated[int, typer.Option(min=1, help="Pictures per prompt, from consecutive seeds.")] = 1,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    evaluator: options.EvaluatorDir = None,
    vote: Annotated[bool, typer.Option("--vote", help="Let people judge, blind, on a page in the browser.")] = False,
    votes: Annotated[Path, typer.Option(help="Keep their votes here, and the pictures beside it.")] = VOTES,
    host: options.Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of the page for voting; 0: any free one.")] = 0,
    open_browser: options.OpenBrowser = False,
) -> Reply:
    """Have several models draw the same prompts and seeds; write a page with scores, latency and cost per image.

    With --vote, open a page on which people choose between two pictures without knowing who drew which; Ctrl-C ends
    it and shows the scores. Started again, it goes on where each voter was. `report RUN --votes` shows the result.

    Examples:

      sd-pipeline compare "a lighthouse at dusk" --prompts prompts.txt --endpoint sd-production

      sd-pipeline compare "a red dot" --endpoint http://127.0.0.1:8080 --endpoint http://127.0.0.1:8081

      sd-pipeline compare --vote --prompts prompts.txt --endpoint sd-production --open
    """
    from pipeline_definition.prompting.comparison import compare as compare_models
    from pipeline_definition.prompting.comparison import contenders_of
    from pipeline_definition.prompting.comparison_page import HEADERS, render, summary
    from pipeline_definition.prompting.study_plan import read_prompts

    settings = context.settings
    # Those of the command line come first, and of no kind; each is drawn once.
    texts = dict.fromkeys((text.strip() for text in prompts or () if text.strip()), "")
    texts |= read_prompts(prompt_file) if prompt_file else {}
    if not texts:
        raise UsageError("nothing to draw: give a prompt, or a file of them with --prompts")
    contenders = contenders_of(lambda: context.target, endpoint or [settings.endpoint.name], variant or [])
    request = {"guidance_scale": guidance, "steps": steps, "num_images": 1, "format": "png"}
    seeds = [seed + number for number in range(images)]
    if vote:
        request = {name: value for name, value in request.items() if value is not None}
        return _let_people_vote(contenders, texts, seeds, request, votes, listen(host, port), open_browser)
    compared = compare_models(
        contenders,
        list(texts),
        seeds,
        request,
        lambda: evaluator or evaluator_folder(settings, context.target, context.state),
    )
    chosen = {"guidance": guidance, "steps": steps}
    write_text(out, render(compared, {name: value for name, value in chosen.items() if value is not None}))
    rows = (summary(standing, compared.standings[0]) for standing in compared.standings)
    return Reply(compared.as_dict(), options.FittedTable(HEADERS, rows), *filter(None, (compared.note, out)))


def _let_people_vote(
    contenders: "Sequence[Contender]",
    texts: Mapping[str, str],
    seeds: Sequence[int],
    request: Mapping[str, Any],
    votes: Path,
    listening: socket.socket,
    open_browser: bool,
) -> Reply:
    """Draw the pairs, serve the page until Ctrl-C, and return what people said."""
    from pipeline_definition.prompting.preference import VOTE_HEADERS, poll_rows, polls
    from pipeline_definition.prompting.vote_page import serve, vote_app
    from pipeline_definition.prompting.votes import draw_ballot

    with Progress(console=errors) as progress:
        drawing = progress.add_task("drawing", total=len(contenders) * len(texts) * len(seeds))
        ballot = draw_ballot(contenders, texts, seeds, request, votes, lambda n: progress.advance(drawing, n))
    address = "http://{}:{}/".format(*listening.getsockname())
    errors.print(f"{len(ballot.pairs)} pairs on {address}; Ctrl-C ends the vote", highlight=False)
    if open_browser:
        typer.launch(address)
    serve(vote_app(ballot), listening)
    found = polls(ballot.file.votes)
    verdict = (found[0].verdict, votes) if found else ("nobody has voted",)
    return Reply([asdict(poll) for poll in found], options.FittedTable(VOTE_HEADERS, poll_rows(found)), *verdict)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises UsageError where it cannot."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror}; --port 0 takes a free one") from None


def prompt_study(
    context: options.CommandContext,
    prompts: Annotated[Path, typer.Option(help="File of prompts, one per line.")],
    modifier: Annotated[
        list[str] | None,
        typer.Option(help="Words to try, such as 'oil painting' or 'a photo of {prompt}'; repeatable."),
    ] = None,
    guidance: Annotated[str, typer.Option(help="Guidance scales, comma-separated.")] = "1,3,7.5",
    steps: Annotated[str, typer.Option(help="Step counts, comma-separated.")] = "10,25",
    sampler: Annotated[str, typer.Option(help="Comma-separated; left out: all, or dpm++ for flow.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Pictures per prompt and setting.")] = 2,
    first_seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Concurrent requests.")] = 8,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the study; an interrupted study resumes there.")
    ] = Path("runs/prompt-study"),
    evaluator: options.EvaluatorDir = None,
    endpoint: EndpointName = None,
    variant: Variant = None,
) -> Reply:
    """Draw every prompt with every modifier, guidance, step count and sampler; score, rank, and show what works.

    Example: sd-pipeline prompt-study --prompts prompts.txt --modifier "oil painting" --local --params params/local.yaml
    """
    from pipeline_definition.prompting.intervals import reservation
    from pipeline_definition.prompting.study import PAGE_FILE, run_study
    from pipeline_definition.prompting.study_plan import Grid, make_plan, read_prompts

    grid = Grid(
        tuple(modifier or ()),
        _numbers("--guidance", guidance, float),
        _numbers("--steps", steps, int),
        tuple(name.strip() for name in (sampler or _samplers(context, of_flow="dpm++")).split(",") if name.strip()),
    )
    plan = make_plan(tuple(read_prompts(prompts)), seeds, first_seed, grid)
    folder = evaluator or evaluator_folder(context.settings, Target(context.settings.account.region), out)
    chosen = endpoint_of(context, endpoint, variant)
    with Progress(console=console) as progress:
        drawing = progress.add_task("drawing", total=len(plan.trials))
        results = run_study(plan, chosen, folder, out, clients, lambda count: progress.advance(drawing, count))
    places = {"best": results.best, "cheapest": results.cheapest, "worst": results.worst}
    lines = []
    for name, entry in places.items():
        score, label = entry.clip_score, "cheapest as good" if name == "cheapest" else name
        lines.append(f"{label:17} {score.mean:.3f} ({score.interval('.3f') or DASH})  {entry.setting.label}")
    made = {"page": str(out / PAGE_FILE)} | {name: asdict(entry) for name, entry in places.items()}
    return Reply(made, *lines, *filter(None, (reservation(len(plan.prompts)),)), out / PAGE_FILE)


def _samplers(context: options.CommandContext, of_flow: str) -> str:
    """Return what the set's model may be drawn with: DDIM draws no flow, and Euler that of transformers alone."""
    return of_flow if context.settings.train.prediction_type == FLOW else "dpm++,ddim,euler"


def _numbers(option: str, text: str, kind: Callable[[str], N]) -> tuple[N, ...]:
    try:
        return tuple(kind(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(f"{option} {text}: write numbers with commas between them, such as 1,3,8") from None
