"""How well pictures show their captions, by `python -m steps score` in a process of its own: this one has no torch.

Reads picture files and the evaluator's clip/ folder, fetched once from data.evaluator_uri where the parameter set has
none on this machine; writes that copy into the folder it is given.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from params.files import import_path, whole_file
from params.layout import ENTRY_POINT
from params.s3 import join_uri, split_uri
from params.settings import Settings
from pipeline_definition.errors import OperatorError
from pipeline_definition.session import Target

CLIP_DIR: Final = "clip"
ROOT: Final = Path(__file__).resolve().parents[2]


class ScoringError(OperatorError):
    """Pictures cannot be scored: the message says why."""


@dataclass(frozen=True)
class ClipScores:
    """The cosine of each picture with its caption, and the digest of the CLIP that it comes from."""

    scores: tuple[float, ...]
    """-1..1, in the pictures' order."""
    clip: str
    """SHA-256 of the CLIP's folder: scores of two CLIPs do not compare."""


def score_pictures(pairs: Sequence[tuple[Path, str]], evaluator_dir: Path) -> ClipScores:
    """Score pictures against their captions. Raises ScoringError with the program's own reason."""
    with tempfile.TemporaryDirectory() as folder:
        listed, scores = Path(folder) / "pairs.jsonl", Path(folder) / "scores.json"
        lines = (json.dumps({"picture": str(picture.resolve()), "caption": caption}) for picture, caption in pairs)
        listed.write_text("\n".join(lines), encoding="utf-8")
        flags = ["--pictures", str(listed), "--evaluator", str(evaluator_dir.resolve()), "--scores", str(scores)]
        command = [sys.executable, "-P", *ENTRY_POINT[1:], "score", *flags]
        done = subprocess.run(command, env={**os.environ, **import_path(ROOT)}, capture_output=True, text=True)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
            raise ScoringError(f"pictures cannot be scored: {last[0].removeprefix('error: ')}")
        result = json.loads(scores.read_text(encoding="utf-8"))
    return ClipScores(tuple(result["scores"]), result["clip"])


def evaluator_folder(settings: Settings, target: Target, cache_dir: Path) -> Path:
    """Return a folder with the evaluator's clip/: the local set's own, or a copy of data.evaluator_uri's.

    Raises ScoringError where that address holds none.
    """
    if settings.local is not None:
        return ROOT / settings.local.evaluator_dir
    bucket, prefix = split_uri(join_uri(settings.data.evaluator_uri, CLIP_DIR, ""), ScoringError)
    folder = cache_dir / "evaluator"
    s3 = target.client("s3")
    entries = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    if not entries:
        raise ScoringError(f"s3://{bucket}/{prefix} holds no CLIP; data.evaluator_uri or --evaluator names one")
    for key in (entry["Key"] for entry in entries):
        path = folder / CLIP_DIR / Path(key.removeprefix(prefix)).name
        if not path.is_file():
            with whole_file(path) as partial, partial.open("wb") as file:
                shutil.copyfileobj(s3.get_object(Bucket=bucket, Key=key)["Body"], file)
    return folder
