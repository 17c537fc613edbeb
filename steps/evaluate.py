"""Judges a trained model on held-out captions.

Reads input_dir("model")/model.tar.gz, input_dir("evaluator") (CLIP, and Inception's weights where FID uses them) and
input_dir("reference"), the held-out pictures of encode. Writes samples/*.png, samples.json, contact_sheet.png and,
last, metrics.json into output_dir("evaluation"). Run again after a kill, it draws only the pictures that are missing.

    python -m steps evaluate --samples 30000 --guidance-scale 8 --sampler ddim --inference-steps 50
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import torch

from params.arguments import parse
from params.layout import EVALUATION, EVALUATOR, MODEL, MODEL_ARCHIVE, REFERENCE, SAMPLES_DIR
from params.programs import EvaluateArguments
from steps.container import Cluster, Container
from steps.errors import StepError
from steps.evaluation import report
from steps.evaluation.generation import Work, devices_here, generate, quiet_libraries
from steps.evaluation.plan import plan
from steps.evaluation.prompts import choose_prompts
from steps.evaluation.provenance import model_record
from steps.evaluation.reference import Reference
from steps.evaluation.results import metrics
from steps.evaluation.scoring import Scorer, generated_pairs, real_pairs
from steps.model.archive import unpack_model
from steps.model.pretrained import folder_digest
from steps.progress import Progress

# On the job's volume: the root file system of an instance is small.
UNPACKED_MODEL_DIR: Final = "/opt/ml/processing/model"


def main(argv: list[str]) -> int:
    """Run the program; return its exit status."""
    arguments = parse(EvaluateArguments, argv, "evaluate")
    quiet_libraries()
    container = Container(os.environ)
    cluster = container.cluster()
    _check_hosts(cluster, arguments)
    # Everything that can be missing is looked at first: generating takes hours.
    reference = Reference(container.input_dir(REFERENCE))
    prompts = choose_prompts(reference.captions, arguments.samples, arguments.seed)
    devices = devices_here()
    scorer = Scorer(container.input_dir(EVALUATOR), arguments.fid_features, torch.device(devices[0]))
    output_dir = container.output_dir(EVALUATION)
    model_dir = container.path(UNPACKED_MODEL_DIR)
    unpack_model(container.input_dir(MODEL) / MODEL_ARCHIVE, model_dir)
    model_digest = folder_digest(model_dir)
    work = plan(arguments, model_dir, model_digest, prompts, reference.size_px, output_dir / SAMPLES_DIR)
    record = model_record(model_dir)
    generate(work, devices, cluster.rank, len(cluster.hosts))
    shutil.rmtree(model_dir)
    if cluster.is_head:
        _judge(arguments, work, reference, scorer, record, {"model": model_digest}, output_dir)
    return 0


def _judge(
    arguments: EvaluateArguments,
    work: Work,
    reference: Reference,
    scorer: Scorer,
    record: dict[str, Any],
    digests: dict[str, str],
    output_dir: Path,
) -> None:
    counts = {f"{row.name}_pictures": len(row.prompts) for row in work.rows} | {"real_pictures": len(reference)}
    progress = Progress("score", sum(counts.values()), "pictures")
    real = scorer.score(real_pairs(reference), progress.advance)
    trained, *others = [scorer.score(generated_pairs(row), progress.advance) for row in work.rows]
    untrained = others[0] if others else None
    entries = metrics(real, trained, untrained, arguments.fid_features, arguments.seed)
    report.write_samples(output_dir, work.rows[0], trained.cosines)
    report.write_contact_sheet(output_dir, reference, entries, work, arguments.contact_sheet_samples)
    digests |= {"reference": reference.digest, **scorer.digests}
    report.write_metrics(output_dir, entries, arguments, work, counts, record, digests)
    for name, entry in entries.items():
        print(f"{name}={entry['value']:.6g}", flush=True)


def _check_hosts(cluster: Cluster, arguments: EvaluateArguments) -> None:
    if len(cluster.hosts) > 1 and not arguments.samples_uri:
        raise StepError(f"{len(cluster.hosts)} hosts share pictures through samples_uri: set it, or use one host")
