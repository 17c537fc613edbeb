"""The user's own data, before anything runs: check it, report on it, and write a parameter set sized for it.

Reads the data; writes <runs>/NAME.html, the page to look at, and <state>/sets/NAME.yaml, the parameter set of the run.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from params.files import write_text
from params.s3 import SCHEME, join_uri
from params.settings import Settings, load_settings, parse_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.options import say
from pipeline_definition.errors import UsageError
from pipeline_definition.runs.small_set import fine_tuning, merged, side_of, small_set, too_few_held_out

# In the packages, beside the local set's own.
PHOTO_MODELS: Final = "shapes/photo_models"

if TYPE_CHECKING:
    from pipeline_definition.artifacts.own_data import OwnData


@dataclass(frozen=True)
class OwnSet:
    """A run's parameter set, and what it has to upload."""

    params: Path
    settings: Settings
    files: Mapping[str, Path] = field(default_factory=dict)
    """To data.url_table, by name."""


def own_set(params: Path, data: str | None, pretrained: Path | None, state: Path, runs: Path, client: Any) -> OwnSet:
    """Return the set for `--data` and `--pretrained`, on the base of `params`.

    The local set's sizes are replaced by those of a small set; a user's own parameter set keeps its sizes.
    """
    from pipeline_definition.artifacts.own_data import own_data

    base = load_settings(params)
    is_own, bucket = base != load_settings(options.LOCAL_PARAMS), base.account.bucket
    changes: dict[str, Any] = {}
    side_px, name = base.encode.resolution_px, ""
    if pretrained:
        side_px = side_px if is_own else side_of(pretrained)
        changes = merged(_pretrained(pretrained.resolve(), bucket), fine_tuning(pretrained, keeps_rates=is_own))
        name = changes["data"]["pretrained_uri"].rsplit("/", 1)[-1]
    own: OwnData | None = None
    if data:
        judged_by = base.download if is_own else base.download.model_copy(update={"image_size_px": side_px})
        own = own_data(data, judged_by, client)
        name = own.name
        if not is_own and not pretrained:
            changes = _photo_models(bucket)
        show(own, runs / f"{name}.html")
        if is_own and (problem := too_few_held_out(own.sample.kept, base.encode.heldout_fraction)):
            raise UsageError(f"{params}: {problem}")
        sizes = {} if is_own else small_set(own.usable, own.sample.kept, side_px)
        changes = merged(merged(sizes, changes), _of_data(own, bucket))
    elif not is_own:
        sizes = {"download": {"image_size_px": side_px}, "encode": {"resolution_px": side_px}}
        changes = merged(sizes, changes)
    path = state / "sets" / f"{name}.yaml"
    values = merged(base.model_dump(mode="json", exclude_unset=True), changes)
    text = f"# {params} for {data or pretrained}, written by run-local.\n" + yaml.safe_dump(values, sort_keys=False)
    settings = parse_settings(text, str(path))
    write_text(path, text)
    train = settings.train
    say(f"set:   {path}: {settings.encode.resolution_px} px, {train.training_samples:,} samples to train on")
    return OwnSet(path, settings, own.files if own else {})


def show(own: "OwnData", page: Path) -> None:
    """Say what a data set holds and what Download would leave out, and write the page of it."""
    from pipeline_definition.pages.html import to_html
    from pipeline_definition.report.data_page import data_document, scripts

    sample = own.sample
    kind = "rows" if own.source == "urls" else "pictures"
    looked_at = f", of {len(sample.captions):,} looked at" if len(sample.captions) < sample.rows else ""
    if sample.rows:
        writing = ", ".join(f"{name} {count:g}" for name, count in scripts(sample.kept).items())
        different = f"{len(sample.kept):,} with {len(set(sample.kept)):,} different captions"
        say(f"data:  {own.place}: {sample.rows:,} {kind}; usable: {different} ({writing}){looked_at}")
    if shorter := sorted(min(sides) for sides in sample.sides):
        say(f"sizes: shorter side {shorter[0]} to {shorter[-1]} px, half of them {shorter[len(shorter) // 2]} or more")
    if lost := [f"{cause.replace('_', ' ')} {count}" for cause, count in sorted(sample.left_out.items())]:
        say(f"left out: {', '.join(lost)}{looked_at}")
    if own.passed_over:
        say(f"not read: {', '.join(f'{count} {end}' for end, count in sorted(own.passed_over.items()))}")
    write_text(page, to_html(data_document(own.place, sample)))
    say(f"page:  {page}")


def _of_data(own: "OwnData", bucket: str) -> dict[str, Any]:
    return {
        "data": {"name": own.name, "url_table": own.uri_in(bucket)},
        "download": {"source": own.source, **own.columns},
        # Its models are compared with each other, not with those of other data.
        "registry": {"group": f"own-{own.name}"},
    }


def _photo_models(bucket: str) -> dict[str, Any]:
    """Return where the shipped models for the user's own pictures go: the local set's models know only shapes."""
    uri = join_uri(f"{SCHEME}{bucket}", "pretrained", "photographs")
    return {
        "data": {"pretrained_uri": f"{uri}/pretrained", "evaluator_uri": f"{uri}/evaluator"},
        "local": {"pretrained_dir": PHOTO_MODELS + "/pretrained", "evaluator_dir": PHOTO_MODELS + "/evaluator"},
    }


def _pretrained(folder: Path, bucket: str) -> dict[str, Any]:
    """Return where a pretrained folder, and its evaluator if there is one, go."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    state = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    name = f"pretrained-{hashlib.sha256(repr(state).encode()).hexdigest()[:8]}"
    uri = join_uri(f"{SCHEME}{bucket}", "pretrained", name)
    data, local = {"pretrained_uri": uri}, {"pretrained_dir": str(folder)}
    if (folder / "evaluator").is_dir():
        data["evaluator_uri"] = join_uri(f"{SCHEME}{bucket}", "evaluator", name)
        local["evaluator_dir"] = str(folder / "evaluator")
    return {"data": data, "local": local}
