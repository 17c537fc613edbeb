"""An exported folder draws the same picture in today's diffusers and transformers as in last year's (`make matrix`)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steps.__main__ import main
from tests.steps.serving.tiny_pipeline import write_pipeline

OLDER = Path(".matrix").resolve()
# As anybody would write it: no option, no name of a precision.
DRAW = """
import sys, numpy, torch, transformers
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1])
seed = torch.Generator().manual_seed(0)
options = {"height": 32, "width": 32, "num_inference_steps": 4, "output_type": "np"}
numpy.save(sys.argv[2], pipeline("a", generator=seed, **options).images[0])
print(transformers.__version__)
"""

pytestmark = pytest.mark.matrix


def drawn(model: Path, picture: Path, path: str) -> tuple[str, np.ndarray[Any, Any]]:
    command = [sys.executable, "-P", "-c", DRAW, str(model), str(picture)]
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "newly initialized" not in done.stderr
    return done.stdout.split()[-1], np.load(picture)


@pytest.mark.parametrize("half", ["false", "true"])
def test_the_same_seed_draws_the_same_picture_in_both(tmp_path: Path, half: str) -> None:
    model = write_pipeline(tmp_path / "model")
    assert main(["export", "--model", str(model), "--out", str(tmp_path / "out"), "--half", half]) == 0
    today, picture = drawn(tmp_path / "out", tmp_path / "today.npy", "")
    before, older = drawn(tmp_path / "out", tmp_path / "older.npy", str(OLDER))
    assert (today.split(".")[0], before) == ("5", "4.57.1")
    assert picture.std() > 0.01
    assert np.abs(picture - older).max() < 1e-4
