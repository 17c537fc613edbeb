"""Prompt following, counted: the share of the trained model's pictures that show what their prompts ask for.

Reads the rows' pictures, and the real ones where these say what words look like; writes nothing. On the local set the
pixels say what is right, on the judged pictures; elsewhere a detector does, on pictures of a suite of its own.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from params.layout import PROMPT_FOLLOWING
from params.programs import EvaluateArguments
from steps.evaluation.captions import Prompt
from steps.evaluation.clip_scorer import ClipEvaluator
from steps.evaluation.detector import DETECTOR_DIR, Detector
from steps.evaluation.generation import Work, with_captions
from steps.evaluation.intervals import share
from steps.evaluation.reference import Reference
from steps.evaluation.results import REAL, Entries
from steps.evaluation.scoring import CaptionedPictures, generated_pairs, real_pairs
from steps.evaluation.shapes_reader import ShapesReader

ROW: Final = "following"


class PromptFollowing:
    def __init__(
        self, arguments: EvaluateArguments, folder: Path, reference: Reference, asked: list[Prompt], clip: ClipEvaluator
    ) -> None:
        """Load the judge. Raises StepError where the evaluator lacks it or it cannot judge what is asked."""
        self._reference, self._turns, self._facts = reference, list[str](), dict[str, Any]()
        if arguments.following == "shapes":
            self._verdict = ShapesReader(real_pairs(reference), [prompt.caption for prompt in asked]).verdict
        else:
            detector = Detector(folder / DETECTOR_DIR, arguments.detector_threshold, clip)
            self._verdict, self._facts = detector.verdict, detector.facts
            self._turns = list(islice(cycle(detector.prompts), arguments.following_samples))

    def planned(self, work: Work, others_dir: Path) -> Work:
        """Return the work with the pictures that are judged beyond those that are drawn anyway."""
        return with_captions(work, ROW, self._turns, others_dir)

    def entries(self, work: Work) -> Entries:
        """Return the shares of drawn pictures; with the pixels also that of real ones: what the judge gets right."""
        if self._turns:
            return next(self._shares(generated_pairs(row)) for row in work.rows if row.name == ROW)
        real = self._shares(real_pairs(self._reference))[PROMPT_FOLLOWING]
        return {**self._shares(generated_pairs(work.rows[0])), f"{PROMPT_FOLLOWING}_{REAL}": real}

    def _shares(self, pairs: Iterable[CaptionedPictures]) -> Entries:
        """Return the share of pictures that are right in all that they are judged on, and that of each kind."""
        hits: dict[str, list[bool]] = defaultdict(list)
        for one in (one for pictures, captions in pairs for one in zip(pictures, captions, strict=True)):
            verdict = self._verdict(*one)
            hits[PROMPT_FOLLOWING].append(all(verdict.values()))
            for kind, is_right in verdict.items():
                hits[f"{PROMPT_FOLLOWING}_{kind}"].append(is_right)
        return {key: share(np.array(of), **self._facts) for key, of in hits.items()}
