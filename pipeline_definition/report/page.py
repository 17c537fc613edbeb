"""Writes the run's page: one HTML file that answers with no other file and no network.

Reads a run's artifacts folder; writes one file. The same artifacts give the same bytes.

    sd-pipeline report RUN
"""

from pathlib import Path

from params.files import write_text
from params.layout import COPIES_FILE
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.pages.document import Document, EmbeddedPicture, Section, data_address
from pipeline_definition.pages.formats import date, duration
from pipeline_definition.pages.html import to_html
from pipeline_definition.report import bill, data, headline, lineage, quality, steps, training, tuning
from pipeline_definition.report.run import Run, run_of

SECTIONS = (
    *(quality.scorecard_section, quality.quality_section, bill.cost_section),
    *(training.training_section, tuning.tuning_section),
    *(data.went_in_section, data.download_section, data.latents_section),
    *(lineage.parameters_section, lineage.lineage_section),
)
# Told once for each phase of the training.
OF_A_PHASE = (training.training_section, data.latents_section)
# The page is to be sent around: a mail takes 10 MB, and base64 makes a third more of every byte.
MAX_SHEET_BYTES = 4 * 2**20
MAX_GALLERY_BYTES = 2 * 2**20
MAX_GALLERY_PICTURES = 6
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHEET = "Contact sheet: each prompt with the real picture and the model’s"
ORIGIN = "Made from the run’s artifacts alone; no network is needed to read it."


def write_report(artifacts: Artifacts, path: Path, judged: Section | None = None) -> None:
    write_text(path, render(run_of(artifacts), judged))


def render(run: Run, judged: Section | None = None) -> str:
    ending, execution = headline.verdict(run), run.artifacts.execution
    told = (part(seen) for part in SECTIONS for seen in (run.phases if part in OF_A_PHASE else (run,)))
    eyebrow = (
        # From arn:aws:sagemaker:REGION:ACCOUNT:pipeline/NAME/execution/ID.
        [*str(execution.get("arn", "")).split("/"), "pipeline"][1],
        f"run {execution['id']}" if execution.get("id") else "",
        date(run.start) if run.start else "",
        "on this machine" if run.is_local else str(execution.get("region") or ""),
    )
    document = Document(
        eyebrow=tuple(filter(None, eyebrow)),
        title=ending.title,
        lead=ending.lead,
        sections=(*filter(None, (judged,)), *told),
        notes=tuple(filter(None, (ORIGIN, str(execution.get("arn") or "")))),
    )
    return to_html(
        document,
        Path(__file__).with_name("run.html"),
        seal=ending.kind,
        failure=headline.failure(run),
        tiles=headline.tiles(run),
        pictures=pictures_section(run.artifacts),
        copies=_copies(run.artifacts.folder / COPIES_FILE),
        drawings=tuple(steps.drawing(direction, run.steps) for direction in ("lying", "standing")),
        steps=tuple(steps.timeline(run)),
        summary=f"{duration(run.seconds)} in all." if run.seconds is not None else "",
        is_local=run.is_local,
        left_out=execution.get("left_out") or {},
    )


def pictures_section(artifacts: Artifacts) -> Section:
    """Return what the model draws: the first pictures with their captions, as many as fit, and the contact sheet."""
    captions = {Path(str(entry.get("file", ""))).name: str(entry.get("caption") or "") for entry in artifacts.captions}
    embedded, left = [], MAX_GALLERY_BYTES
    for path in artifacts.samples[:MAX_GALLERY_PICTURES]:
        if source := _inline(path, left):
            left -= path.stat().st_size
            caption = captions.get(path.name, "")
            embedded.append(EmbeddedPicture(source, caption, caption=caption))
    source = _inline(artifacts.contact_sheet, MAX_SHEET_BYTES) if artifacts.contact_sheet else None
    sheet = EmbeddedPicture(source, SHEET, SHEET) if source else None
    return Section("pictures", "What it draws", pictures=tuple(embedded), sheet=sheet, is_wide=True)


def _copies(path: Path) -> str:
    """Return the page of the closest pairs, for a frame without scripts; where it is too large, its name."""
    if not path.is_file() or path.stat().st_size <= MAX_SHEET_BYTES:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    return f"Too large to be shown here: open {path.name} among the run's artifacts."


def _inline(path: Path, max_bytes: int) -> str | None:
    """Return a PNG as a data: address; what is larger or no PNG is not shown."""
    if path.stat().st_size > max_bytes:
        return None
    content = path.read_bytes()
    return data_address(content) if content.startswith(PNG_SIGNATURE) else None
