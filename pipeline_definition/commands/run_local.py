"""`sd-pipeline run-local`: the whole pipeline on this machine, through the same upsert, start and status as on AWS."""

import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from params.files import write_json
from params.parameter_names import IMAGES, MAX_FID
from params.s3 import SCHEME
from params.settings import load_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.checks import cloud_of, definition_text, engine_of, refuse_findings
from pipeline_definition.commands.mistakes import INTERRUPTED
from pipeline_definition.commands.options import console, parse_changes, print_json, say
from pipeline_definition.commands.own_set import OwnSet, own_set
from pipeline_definition.jobs.planned import Values
from pipeline_definition.models.registry import with_approved_model
from pipeline_definition.runs.executions import SUMMARY_FILE, Execution, Executions, point_latest_at, summarise
from pipeline_definition.runs.laptop import Laptop
from pipeline_definition.runs.live_view import show
from pipeline_definition.runs.small_set import OPEN_GATE
from pipeline_definition.runs.watch import Watcher
from pipeline_definition.session import Target

POLL_S = 0.5

Resume = Annotated[str | None, typer.Option(metavar="RUN", help="Resume a killed run: its id, or `latest`.")]

Data = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Your own pictures in place of drawn shapes: a folder, a table (.csv, .tsv, .jsonl, .parquet) of "
        "addresses or pictures, or an s3:// address of the local control plane.",
    ),
]
Pretrained = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Models as diffusers saves them, in place of the small ones.")
]


def run_local(
    params: options.Params = options.LOCAL_PARAMS,
    data: Data = None,
    pretrained: Pretrained = None,
    changes: options.Changes = None,
    resume: Resume = None,
    state: options.State = options.DEFAULT_STATE,
    runs: options.Runs = options.DEFAULT_RUNS,
    backend: options.Backend = "process",
    as_json: options.AsJson = False,
) -> None:
    """Run the whole pipeline on this machine: no AWS account, no Docker, no GPU.

    With --json the summary goes to standard output, and all that people read while it runs to standard error.

    Examples:

      sd-pipeline run-local

      sd-pipeline run-local --data ./photos

      sd-pipeline run-local --data pictures.csv --pretrained ./stable-diffusion

      sd-pipeline run-local --set MaxFid=0 --set TrainingInstanceCount=1

      sd-pipeline run-local --resume latest

      sd-pipeline run-local --backend docker $(containers/build.sh | sed 's/^/--set /')
    """
    from pipeline_definition.local.client import ensure_up
    from pipeline_definition.local.state_lock import StateLock

    if data or pretrained:
        is_stored = data is not None and data.startswith(SCHEME)
        with ensure_up(state, runs, leash=True, backend=backend) if is_stored else nullcontext() as store:
            client = Target(load_settings(params).account.region, store.url).client("s3") if store else None
            own = own_set(params, data, pretrained, state, runs, client)
    else:
        own = OwnSet(params, load_settings(params))
    settings = own.settings
    values = parse_changes(changes)
    definition = definition_text(settings)
    refuse_findings(settings, json.loads(definition), values, target=None)
    if engine := engine_of(backend):
        chosen = Values(json.loads(definition), values)
        engine.require({name: chosen.text(name) for name in IMAGES})
    with (
        closing(StateLock(state / "run", "run-local")),  # another run would end with this one's control plane
        ensure_up(state, runs, leash=True, backend=backend, cloud=cloud_of(settings)) as plane,
        sigterm_as_interrupt(),
    ):
        run = LocalRun(own, definition, Target(settings.account.region, plane.url), state, runs)
        execution = run.run(values, resume)
        summary = run.report(execution)
        if as_json:
            print_json(summary)
        if execution.status == "Succeeded":
            plane.stay()
    raise typer.Exit(0 if execution.status == "Succeeded" else 1)


@dataclass(frozen=True)
class LocalRun:
    own: OwnSet
    definition: str
    target: Target
    state: Path
    runs: Path

    def run(self, values: Mapping[str, str], resume: str | None) -> Execution:
        """Make the world, start or resume, and watch until the end."""
        laptop = Laptop(self.own.settings, self.target, self.state / "world", options.ROOT, self.own.files)
        executions = Executions(self.target)
        with laptop.ready() as world:
            if resume:
                arn = executions.find(self.own.settings.pipeline_name, resume)
                if executions.describe(arn).status in ("Failed", "Stopped"):
                    executions.retry(arn)
            else:
                arn = self._start(executions, {**world, **values})
            run_dir = self.run_dir(arn)
            run_dir.mkdir(parents=True, exist_ok=True)
            point_latest_at(run_dir)
            say(f"logs: {run_dir}/logs")
            try:
                return show(Watcher(self.target, arn, POLL_S).snapshots(), console)
            except KeyboardInterrupt:
                say("stopping ...")
                executions.stop(arn)
                again = f"run-local --params {self.own.params}{self._state_option} --resume {run_dir.name}"
                say(f"stopped; resume with: {_this_command()} {again}")
                raise typer.Exit(INTERRUPTED) from None

    def run_dir(self, arn: str) -> Path:
        return self.runs / arn.rsplit("/", 1)[-1]

    def report(self, execution: Execution) -> dict[str, Any]:
        """Write the summary and the report, and say how it ended; return the summary."""
        from pipeline_definition.artifacts.collection import collect
        from pipeline_definition.models.gate import gate_lines
        from pipeline_definition.models.versions import with_versions
        from pipeline_definition.report.page import write_report

        run_dir = self.run_dir(execution.arn)
        artifacts = with_versions(self.target, collect(self.target, execution, run_dir / "artifacts"))
        summary = summarise(execution, artifacts.metrics)
        write_json(run_dir / SUMMARY_FILE, summary)
        write_report(artifacts, run_dir / "report.html")
        used = Values(json.loads(self.definition), artifacts.parameters)
        _print_outcome(summary, run_dir, float(used.text(MAX_FID)), gate_lines(artifacts).values())
        if summary["endpoint_name"]:
            prompt = shlex.quote(_prompt_of(artifacts.captions))
            here = f"--local --params {self.own.params}{self._state_option}"
            train = self.own.settings.train
            if train.lora_rank and train.lora_output == "separate":
                here = f"--adapter {train.lora_name} {here}"
            say(f"\nprompt it:     {_this_command()} prompt {prompt} {here}")
            say(f"stop it:       {_this_command()} local down{self._state_option}")
        return summary

    @property
    def _state_option(self) -> str:
        return "" if self.state == options.DEFAULT_STATE else f" --state {self.state}"

    def _start(self, executions: Executions, values: Mapping[str, str]) -> str:
        account, name = self.own.settings.account, self.own.settings.pipeline_name
        executions.upsert(name, self.definition, account.role_arn, account.bucket)
        return executions.start(name, with_approved_model(self.target, json.loads(self.definition), values))


def _prompt_of(drawn: Iterable[Mapping[str, Any]]) -> str:
    """Return a caption that the evaluation drew: a held-out one of the run's own data.

    Captions come from outside: one that a terminal or a command line could take for more than text is passed over.
    """
    captions = (str(picture.get("caption") or "") for picture in drawn)
    return next((text for text in captions if text and text.isprintable() and not text.startswith("-")), "a picture")


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let a polite kill do what Ctrl-C does: stop the jobs, keep what is finished."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_outcome(summary: Mapping[str, Any], run_dir: Path, max_fid: float, lines: Iterable[Sequence[str]]) -> None:
    console.print()
    for name, value, interval, asked, judged in lines:
        say(f"{judged[0]} {name} {value} (interval {interval}; must be {asked})")
    if summary["status"] == "Succeeded" and max_fid >= OPEN_GATE["max_fid"] and not summary["warnings"]:
        console.print("no gate: the figures of a small set are for reading (--set MaxFid=... asks for one)")
    elif summary["status"] == "Succeeded":
        console.print("[bold green]gate passed[/]" if not summary["warnings"] else "[bold yellow]gate passed, but:[/]")
    else:
        console.print(f"[bold red]{summary['status'].lower()}[/]: ", end="")
        say(summary["failure_reason"] or "see the steps above")
    for sentence in summary["warnings"]:
        say(sentence)
    pages = {"report": run_dir / "report.html", "contact sheet": run_dir / "artifacts" / "contact_sheet.png"}
    made = {"model package": summary["model_package_arn"], "endpoint": summary["endpoint_name"]}
    for name, value in {**{name: path for name, path in pages.items() if path.exists()}, **made}.items():
        if value:
            say(f"{name:14} {value}")


def _this_command() -> str:
    """Return how to call this command from here: `make run` puts no virtual environment on the PATH."""
    return "sd-pipeline" if shutil.which("sd-pipeline") else os.path.relpath(sys.argv[0])
