"""`sd-pipeline compare`: the same prompts and seeds to several models, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from params.files import read_text, write_text
from pipeline_definition.commands import options
from pipeline_definition.commands.options import print_json, print_table, say
from pipeline_definition.errors import UsageError

Prompts = Annotated[list[str] | None, typer.Argument(help="What to draw; can be repeated.")]
PromptFile = Annotated[Path | None, typer.Option("--prompts", help="File of prompts, one per line.")]
Endpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        help="Name or address; of a single one, the variants are compared. Default: the parameter set's. Repeatable.",
    ),
]
Variants = Annotated[list[str] | None, typer.Option("--variant", help="Only this variant; can be repeated.")]
Evaluator = Annotated[Path | None, typer.Option("--evaluator", help="Folder with the scoring CLIP (clip/).")]


@options.with_context
def compare(
    context: options.CommandContext,
    prompts: Prompts = None,
    prompt_file: PromptFile = None,
    endpoint: Endpoints = None,
    variant: Variants = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("comparison.html"),
    seed: Annotated[int, typer.Option("--seed", help="First seed.")] = 0,
    images: Annotated[int, typer.Option("--images", min=1, help="Pictures per prompt, from consecutive seeds.")] = 1,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.")] = None,
    evaluator: Evaluator = None,
    as_json: options.AsJson = False,
) -> None:
    """Have several models draw the same prompts and seeds; write a page with scores, latency and cost per image.

    Examples:

      sd-pipeline compare "a lighthouse at dusk" --prompts prompts.txt --endpoint sd-production

      sd-pipeline compare "a red dot" --endpoint http://127.0.0.1:8080 --endpoint http://127.0.0.1:8081
    """
    from pipeline_definition.prompting.clip_scores import evaluator_folder
    from pipeline_definition.prompting.comparison import compare as compare_models
    from pipeline_definition.prompting.comparison_page import HEADERS, render, summary
    from pipeline_definition.prompting.contenders import contenders_of

    settings = context.settings
    texts = _texts(prompts, prompt_file)
    contenders = contenders_of(lambda: context.target, endpoint or [settings.endpoint.name], variant or [])
    request = {"guidance_scale": guidance, "steps": steps, "num_images": 1, "format": "png"}
    compared = compare_models(
        contenders,
        texts,
        [seed + number for number in range(images)],
        request,
        lambda: evaluator or evaluator_folder(settings, context.target, context.state),
    )
    chosen = {"guidance": guidance, "steps": steps}
    write_text(out, render(compared, {name: value for name, value in chosen.items() if value is not None}))
    if as_json:
        print_json(compared.as_dict())
        return
    print_table(HEADERS, (summary(standing, compared.standings[0]) for standing in compared.standings))
    if compared.note:
        say(compared.note)
    say(out)


def _texts(prompts: list[str] | None, file: Path | None) -> list[str]:
    """Return the prompts of the command line, then those of the file, each once."""
    lines: list[str] = []
    if file is not None:
        lines = read_text(file, UsageError).splitlines()
    texts = [text.strip() for text in [*(prompts or []), *lines] if text.strip()]
    if not texts:
        raise UsageError("nothing to draw: give a prompt, or a file of them with --prompts")
    return list(dict.fromkeys(texts))
