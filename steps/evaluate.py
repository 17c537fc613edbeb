"""Judges a trained model on held-out captions, or on those of any file.

Reads input_dir("model")/model.tar.gz, input_dir("pretrained") (the generic model, where it is a whole one), the
approved model's archive, input_dir("evaluator") (CLIP, and Inception's weights where FID uses them) and
input_dir("reference"), the held-out pictures of encode. Writes samples/*.png, samples.json, contact_sheet.png,
copies.html where training pictures have descriptors, and, last, metrics.json into output_dir("evaluation"). Run again
after a kill, it draws only the pictures that are missing.

    python -m steps evaluate --samples 30000 --guidance-scale 8 --sampler ddim --inference-steps 50
"""

import os
from typing import Final

import torch

from params.arguments import parse
from params.layout import EVALUATION, EVALUATOR, REFERENCE, SAMPLES_DIR
from params.programs import EvaluateArguments
from steps.container import Container
from steps.device import device_names
from steps.errors import StepError
from steps.evaluation.captions import choose_prompts, read_captions
from steps.evaluation.following import PromptFollowing
from steps.evaluation.generation import TRAINED, generate, plan, quiet_libraries
from steps.evaluation.judgement import Judgement
from steps.evaluation.models import check_models, digests, find_models, model_record, remove_models
from steps.evaluation.reference import Reference
from steps.evaluation.results import warnings
from steps.evaluation.scoring import Scorer

# Pictures of the other rows are looked at by nobody: they are kept on the job's volume, not uploaded.
OTHER_PICTURES_DIR: Final = "/opt/ml/processing/pictures"


def main(argv: list[str]) -> int:
    """Run the program; return its exit status."""
    arguments = parse(EvaluateArguments, argv, "evaluate")
    quiet_libraries()
    container = Container(os.environ)
    cluster = container.cluster()
    # Everything that can be missing is looked at first: generating takes hours.
    devices = device_names(container)
    if len(cluster.hosts) > 1 and not arguments.samples_uri:
        raise StepError(f"{len(cluster.hosts)} hosts share pictures through samples_uri: set it, or use one host")
    check_models(container, arguments)
    reference = Reference(container.input_dir(REFERENCE))
    captions = read_captions(arguments.captions, reference.captions)
    prompts = choose_prompts(captions, arguments.samples, arguments.seed)
    evaluator, judge = container.input_dir(EVALUATOR), torch.device(devices[0])
    scorer = Scorer(evaluator, arguments.fid_features, judge, arguments.metrics)
    search = None
    if arguments.descriptors_uri:
        # It needs Ray, which takes seconds to import and which other evaluations do without.
        from steps.evaluation.copies import CopySearch

        search = CopySearch(container, arguments, judge)
    counts = arguments.following != "none"
    following = PromptFollowing(arguments, evaluator, reference, prompts, scorer.clip) if counts else None
    output_dir = container.output_dir(EVALUATION)
    sources = find_models(container, arguments)
    folders = (output_dir / SAMPLES_DIR, container.path(OTHER_PICTURES_DIR))
    work = plan(arguments, sources, prompts, captions.digest, reference.size_px, folders)
    if search:
        work = search.planned(work, folders[1])
    if following:
        work = following.planned(work, folders[1])
    record = model_record(sources[TRAINED].folder)
    generate(work, devices, cluster.rank, len(cluster.hosts))
    counted = search.run(container, work, reference, output_dir) if search else {}
    remove_models(container)
    if cluster.is_head:
        counted |= following.entries(work) if following else {}
        judgement = Judgement(work, captions, reference, scorer, record, digests(sources), counted)
        entries = judgement.write(output_dir)
        for name, entry in entries.items():
            print(f"{name}={entry['value']:.6g}", flush=True)
        for kind, sentences in (("warning", warnings(entries)), ("note", judgement.notes())):
            for sentence in sentences:
                print(f"{kind}: {sentence}", flush=True)
    return 0
