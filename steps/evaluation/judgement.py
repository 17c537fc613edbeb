"""Scores every row's pictures and writes the evaluation: samples, contact sheet, metrics.json.

Reads the reference and the pictures that generation drew; writes into one folder, metrics.json last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from params.layout import GUIDANCE_CURVE, MODEL_RECORD, NO_MODEL, PRECISION_RECALL, WARNINGS
from steps.evaluation import report
from steps.evaluation.captions import Captions
from steps.evaluation.further import SOURCES
from steps.evaluation.generation import APPROVED, PRETRAINED, TRAINED, UNTRAINED, Work, guidance_row
from steps.evaluation.reference import Reference
from steps.evaluation.results import Entries, about_fid, comparisons, curve, further_metrics, metrics, warnings
from steps.evaluation.scoring import Scorer, Scores, generated_pairs, real_pairs
from steps.progress import Progress


@dataclass(frozen=True)
class Judgement:
    work: Work
    captions: Captions
    reference: Reference
    scorer: Scorer
    record: Mapping[str, Any]
    """The trained model's lineage."""
    model_digests: Mapping[str, str]
    counted: Entries = field(default_factory=dict)
    """Metrics that were counted before: shares of copies, prompt following."""

    def write(self, folder: Path) -> Entries:
        counts = {f"{row.name}_pictures": len(row.prompts) for row in self.work.rows}
        grid = map(guidance_row, self.work.arguments.guidance_grid)
        judged = {TRAINED, UNTRAINED, PRETRAINED, APPROVED, *grid}
        # Rows that were drawn to be counted have no scores that anybody reads.
        scored = [row for row in self.work.rows if row.name in judged]
        progress = Progress("score", sum(len(row.prompts) for row in scored) + len(self.reference), "pictures")
        real = self.scorer.score(real_pairs(self.reference), progress.advance)
        rows = {row.name: self.scorer.score(generated_pairs(row), progress.advance) for row in scored}
        entries = {**self._entries(real, rows), **self.counted}
        report.write_samples(folder, self.work.rows[0], rows[TRAINED].cosines)
        report.write_contact_sheet(folder, self.reference, entries, self.work)
        digests = {"reference": self.reference.digest, "captions": self.captions.digest}
        measured = {
            "metrics": entries,
            GUIDANCE_CURVE: self._curve(real, rows),
            MODEL_RECORD: dict(self.record),
            WARNINGS: warnings(entries),
            "notes": self.notes(),
            "digests": {**self.model_digests, **self.scorer.digests, **digests},
            "real_pictures": len(self.reference),
            **counts,
        }
        report.write_metrics(folder, measured, self.work)
        return entries

    def _entries(self, real: Scores, rows: Mapping[str, Scores]) -> Entries:
        features, seed = self.work.arguments.fid_features, self.work.arguments.seed
        judged = {name: rows[name] for name in (TRAINED, UNTRAINED, PRETRAINED, APPROVED) if name in rows}
        entries = metrics(real, judged, features, seed)
        facts = {extractor.name: extractor.facts for extractor in self.scorer.extractors}
        facts[PRECISION_RECALL] = {"source": SOURCES[PRECISION_RECALL], **about_fid(features)}
        entries |= further_metrics(real, judged, self.work.arguments.metrics, facts)
        others = {PRETRAINED: rows[PRETRAINED]} if PRETRAINED in rows else {}
        # Before any model is approved, or without untrained pictures, the trained one is compared with itself, and the
        # notes say so.
        others |= {name: rows.get(name, rows[TRAINED]) for name in (UNTRAINED, APPROVED)}
        return {**entries, **comparisons(real, rows[TRAINED], others)}

    def _curve(self, real: Scores, rows: Mapping[str, Scores]) -> list[dict[str, object]]:
        arguments = self.work.arguments
        points = {scale: rows[guidance_row(scale)] for scale in arguments.guidance_grid if guidance_row(scale) in rows}
        if arguments.grid_samples and arguments.guidance_scale in arguments.guidance_grid:
            points[arguments.guidance_scale] = rows[TRAINED].first(arguments.grid_samples)
        return curve(real, points, arguments.fid_features)

    def notes(self) -> list[str]:
        """Return what a reader of the metrics has to know about how they came about."""
        asked, samples = self.work.arguments.samples, len(self.work.rows[0].prompts)
        notes = []
        if served := ", ".join(self.work.arguments.served):
            notes.append(
                f"judged otherwise than the endpoint serves, as the parameter set asks: it serves with {served}"
            )
        if samples < asked:
            kind = "held-out captions" if self.captions.is_heldout else "captions in the file"
            notes.append(f"{asked} samples were asked for, but there are only {samples} {kind}")
        if APPROVED not in self.model_digests:
            reason = (
                "no model is approved yet" if self.work.arguments.approved_model == NO_MODEL else "comparisons are off"
            )
            notes.append(f"compared with itself in place of an approved model: {reason}")
        elif self.model_digests[APPROVED] == self.model_digests["model"]:
            notes.append("the approved model is this very one: compared with itself")
        if UNTRAINED not in {row.name for row in self.work.rows}:
            notes.append("not compared with the untrained model: untrained_samples is 0")
        return notes
