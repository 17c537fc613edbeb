"""Which metric orders checkpoints as the pixels do, where the pixels are the answer: on the local world.

    python -m tests.end_to_end.metric_order EVALUATION EVALUATION ... (six checkpoints of one run, say)

Reads of each folder what Evaluate left: metrics.json, samples.json and samples/. The truth is by how many grey levels
(rms) a picture is off the one that its caption describes. Writes a table: for each metric Spearman's rank correlation
with the truth, signed so that 1 is the right order, and its interval. The interval is over draws of each metric from
its own interval and of the pictures that make up the truth: it says what the numbers of pictures leave open.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from shapes.captions import parse
from shapes.pictures import draw

HIGHER_IS_BETTER = ("clip_score", "precision", "recall", "pick_score")
DRAWS = 1000

Floats = NDArray[np.float64]


def errors(folder: Path) -> Floats:
    """Return by how many grey levels each picture is off, (N,)."""
    found = []
    for sample in json.loads((folder / "samples.json").read_text(encoding="utf-8")):
        with Image.open(folder / sample["file"]) as image:
            drawn = np.asarray(image.convert("RGB"), float)
        found.append(float(np.sqrt(np.square(drawn - draw(parse(sample["caption"]), len(drawn))).mean())))
    return np.array(found)


def order(metrics: Sequence[dict[str, Any]], truths: Sequence[Floats], seed: int = 0) -> dict[str, list[float]]:
    """Return each metric's rank correlation with the truth, and the ends of its interval."""
    numbers = np.random.default_rng(seed)
    truth = [one.mean() for one in truths]
    redrawn = [[numbers.choice(one, len(one)).mean() for one in truths] for _ in range(DRAWS)]
    found = {}
    rows = ("_untrained", "_pretrained", "_approved", "_real", "_margin")
    for name in sorted(set.intersection(*(set(one) for one in metrics))):
        if "_above_" in name or "_below_" in name or name.endswith(rows):
            continue
        sign = -1.0 if name.startswith(HIGHER_IS_BETTER) else 1.0
        values = np.array([one[name]["value"] for one in metrics])
        spreads = np.array([(one[name]["high"] - one[name]["low"]) / (2 * 1.96) for one in metrics])
        drawn = [_rank(numbers.normal(values, spreads), other) for other in redrawn]
        found[name] = [sign * _rank(values, truth), *sorted(sign * np.quantile(drawn, [0.025, 0.975]))]
    return found


def _rank(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float:
    return float(stats.spearmanr(first, second).statistic)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    folders = [Path(one) for one in arguments]
    metrics = [json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"] for folder in folders]
    truths = [errors(folder) for folder in folders]
    for folder, truth in zip(folders, truths, strict=True):
        print(f"{folder}: {truth.mean():.2f} grey levels off")
    for name, (value, low, high) in order(metrics, truths).items():
        print(f"{name:24} {value:+.2f} ({low:+.2f} to {high:+.2f})")


if __name__ == "__main__":
    main(sys.argv[1:])
