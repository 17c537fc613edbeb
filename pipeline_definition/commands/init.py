"""`sd-pipeline init`: a parameter set with comments, from five answers; a flag answers its question beforehand."""

import json
import math
import re
from pathlib import Path
from string import Template
from typing import Annotated, Final

import typer

from params.files import write_text
from params.s3 import split_uri
from params.settings import parse_settings
from pipeline_definition.commands.checks import definition_text
from pipeline_definition.commands.options import Reply
from pipeline_definition.errors import UsageError

NAME: Final = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
TEMPLATE: Final = Path(__file__).with_name("init.yaml")
PASSES: Final = 15
# Fewer have no distance that is worth a name, and leave nothing for training.
MIN_ROWS: Final = 100
MAX_EVALUATED: Final = 30_000
MAX_TRIAL_SAMPLES: Final = 2_048_000

Name = Annotated[str, typer.Option(prompt="Name of the pipeline and its data set", help="Its name.")]
UrlTable = Annotated[
    str, typer.Option("--url-table", prompt="Address of the url table, s3://...", help="Prefix or file in S3.")
]
Rows = Annotated[int, typer.Option(min=MIN_ROWS, prompt="Rows of the url table", help="About how many.")]
Resolution = Annotated[
    int, typer.Option("--resolution-px", min=64, prompt="Picture size in pixels", help="256 or 512: a multiple of 64.")
]
Host = Annotated[str, typer.Option("--instance-type", prompt="Host of the training", help="SageMaker instance type.")]


def init(
    name: Name = "my-model",
    url_table: UrlTable = "s3://my-bucket/urls/",
    rows: Rows = 1_000_000,
    resolution_px: Resolution = 256,
    instance_type: Host = "ml.p4d.24xlarge",
    out: Annotated[Path | None, typer.Option(help="The file.", show_default="NAME.yaml")] = None,
) -> Reply:
    """Write a parameter set with comments, and say what of it would block a start.

    Example: sd-pipeline init --name birds --url-table s3://my-bucket/birds/ --rows 200000 --resolution-px 256
      --instance-type ml.g5.12xlarge
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name}: write letters and digits, with hyphens between them, 63 at most")
    file = out or Path(f"{name}.yaml")
    if file.exists():
        raise UsageError(f"--out {file}: is there already; name another file, or remove it")
    split_uri(url_table, lambda problem: UsageError(f"--url-table: {problem}"))
    if resolution_px % 64:
        raise UsageError(f"--resolution-px {resolution_px}: give a multiple of 64, such as 256 or 512")
    answers = {"name": name, "resolution_px": resolution_px, "instance_type": instance_type, "file": file}
    answers |= {"url_table": json.dumps(url_table), **_sizes(rows, resolution_px)}
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(answers)
    notes = _findings(text, file)
    write_text(file, text)
    return Reply({"file": str(file), "notes": notes}, *(f"note: {note}" for note in notes), file)


def _sizes(rows: int, resolution_px: int) -> dict[str, object]:
    """Return what follows from the number of rows: hosts, a batch, budgets in whole batches, held-out pictures."""
    batch = 2048 if rows >= 1_000_000 else 256
    steps = max(100, math.ceil(PASSES * rows / batch))
    trial_steps = max(10, min(steps // 10, MAX_TRIAL_SAMPLES // batch))
    heldout = round(min(0.1, max(0.001, 1.1 * MAX_EVALUATED / rows)), 4)
    # What fails to download leaves fewer pictures than rows.
    evaluated = min(MAX_EVALUATED, int(0.7 * heldout * rows))
    return {
        # A c6i.4xlarge fetches 1,000 rows/s (img2dataset's README); four A10G encode 150 pictures/s of 256 px.
        "download_hosts": math.ceil(rows / 50_000_000),
        "encode_hosts": min(100, math.ceil(rows * (resolution_px / 256) ** 2 / 8_000_000)),
        "rows": f"{rows:_}",
        "batch": batch,
        "micro_batches": "32, 64" if batch == 2048 else "8, 16",
        "passes": f"{steps * batch / rows:,.0f}",
        "training_samples": f"{steps * batch:_}",
        "warmup_samples": f"{steps * batch // 25:_}",
        "save_every_samples": f"{max(batch, steps * batch // 25):_}",
        "trial_samples": f"{trial_steps * batch:_}",
        "trial_warmup_samples": f"{trial_steps * batch // 10:_}",
        "heldout_fraction": f"{heldout:g}",
        "evaluation_samples": f"{evaluated:_}",
        "validation_samples": f"{min(2048, evaluated):_}",
    }


def _findings(text: str, file: Path) -> list[str]:
    """Return what preflight says of a set without account or stack; refuse an answer that would block a start."""
    from pipeline_definition.checks.addresses import FILL
    from pipeline_definition.checks.preflight import preflight
    from pipeline_definition.checks.scale import scale_findings
    from pipeline_definition.jobs.planned import Values, planned_jobs

    settings = parse_settings(text, str(file))
    definition = json.loads(definition_text(settings))
    findings = preflight(settings, definition, {})
    findings = [one for one in findings if FILL not in one.fix and not one.parameter.startswith("account.")]
    if blocking := [str(finding) for finding in findings if finding.blocking]:
        raise UsageError("; ".join(blocking))
    # preflight says how long a step takes once nothing else is wrong, and the account still is.
    jobs = planned_jobs(definition, Values(definition, {}))
    return [str(finding) for finding in [*findings, *scale_findings(settings, definition, {}, jobs)]]
