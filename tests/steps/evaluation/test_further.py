"""Further metrics come from networks in the evaluator, with their source, resize convention and digest of weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPModel, Dinov2Config, Dinov2Model

from params.layout import CMMD, FD_DINOV2, FID_CLEAN, FID_PYTORCH, PICK_SCORE
from steps.errors import StepError
from steps.evaluation.distances import KernelYardstick, gaussian, precision_recall
from steps.evaluation.further import load_extractors
from steps.evaluation.results import further_metrics
from steps.evaluation.scoring import Scores
from steps.model.pretrained import folder_digest
from tests.steps.evaluation.conftest import CAPTIONS, picture
from tests.steps.evaluation.test_inception import made_up_weights

CPU = torch.device("cpu")
PICTURES = np.stack([np.asarray(picture(seed)) for seed in range(4)])


@pytest.fixture(name="judges", scope="module")
def judges_fixture(tmp_path_factory: pytest.TempPathFactory, evaluator_dir: Path) -> Path:
    """An evaluator with a small random network for every metric."""
    folder = tmp_path_factory.mktemp("judges")
    shutil.copytree(evaluator_dir / "clip", folder / "clip")
    shutil.copytree(evaluator_dir / "clip", folder / PICK_SCORE)
    shutil.copytree(evaluator_dir / "clip", folder / CMMD)
    torch.manual_seed(3)
    config = Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=28)
    Dinov2Model(config).save_pretrained(folder / FD_DINOV2)
    save_file(made_up_weights(), folder / "inception.safetensors")
    return folder


def test_every_network_says_its_source_its_resize_and_the_digest_of_its_weights(judges: Path) -> None:
    names = (FID_PYTORCH, FID_CLEAN, FD_DINOV2, CMMD, PICK_SCORE)
    extractors = load_extractors([*names, "precision_recall"], judges, CPU)
    assert [extractor.name for extractor in extractors] == list(names)
    with torch.inference_mode():
        widths = [tuple(one.extract(PICTURES, CAPTIONS[:4]).shape) for one in extractors]
    assert widths == [(4, 2048), (4, 2048), (4, 8), (4, 12), (4,)]
    for extractor in extractors:
        assert set(extractor.facts) == {"source", "resize", "weights"}
        assert "arXiv" in extractor.facts["source"] and len(extractor.facts["weights"]) == 64
    assert extractors[2].digest == folder_digest(judges / FD_DINOV2)
    assert [one.facts["resize"] for one in extractors[:2]] == ["299 px, pytorch_fid", "299 px, clean_fid"]


def test_the_preference_is_the_scaled_cosine_of_picture_and_caption(judges: Path) -> None:
    (extractor,) = load_extractors([PICK_SCORE], judges, CPU)
    model: Any = CLIPModel.from_pretrained(judges / PICK_SCORE)
    with torch.inference_mode():
        scores = extractor.extract(PICTURES, CAPTIONS[:4])
    assert scores.abs().max() <= float(model.logit_scale.detach().exp())
    assert scores.std() > 0


def test_a_metric_without_its_network_is_refused_by_name(judges: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"fd_dinov2: missing; evaluate\.metrics asks for fd_dinov2"):
        load_extractors([FD_DINOV2], tmp_path, CPU)
    shutil.copytree(judges / FD_DINOV2, tmp_path / CMMD)
    with pytest.raises(StepError, match="CMMD takes a CLIP, and this is a Dinov2Model"):
        load_extractors([CMMD], tmp_path, CPU)


def test_pickled_weights_are_not_loaded(judges: Path, tmp_path: Path) -> None:
    shutil.copytree(judges / FD_DINOV2, tmp_path / FD_DINOV2)
    (tmp_path / FD_DINOV2 / "model.safetensors").rename(tmp_path / FD_DINOV2 / "pytorch_model.bin")
    with pytest.raises(StepError, match="cannot be loaded"):
        load_extractors([FD_DINOV2], tmp_path, CPU)


def scores(seed: int, count: int, shift: float = 0.0) -> Scores:
    numbers = np.random.default_rng(seed)
    features = numbers.normal(shift, 1.0, (count, 3))
    further = {FD_DINOV2: features, CMMD: features, PICK_SCORE: numbers.normal(20 - shift, 1, count)}
    cosines = numbers.normal(0.3, 0.1, count)
    return Scores(cosines, cosines, features, features, further)


def test_each_metric_of_each_row_has_its_interval_and_what_it_rests_on() -> None:
    names = ("fd_dinov2", "cmmd", "precision_recall", "pick_score")
    facts = {name: {"source": "a paper"} for name in names}
    real, rows = scores(0, 80), {"trained": scores(1, 60, 0.2), "untrained": scores(2, 60, 3.0)}
    entries = further_metrics(real, rows, names, facts)
    keys = ("fd_dinov2", "fd_dinov2_infinity", "cmmd", "precision", "recall", "pick_score")
    assert set(entries) == {key + row for key in keys for row in ("", "_untrained")}
    for entry in entries.values():
        assert entry["low"] <= entry["value"] <= entry["high"] and entry["source"] == "a paper"
        json.dumps(entry, allow_nan=False)
    for name in ("fd_dinov2", "cmmd"):
        assert entries[name]["value"] < entries[f"{name}_untrained"]["value"]
    for name in ("precision", "recall", "pick_score"):
        assert entries[name]["value"] > entries[f"{name}_untrained"]["value"]


def test_a_metric_that_nobody_asked_for_is_not_measured() -> None:
    assert further_metrics(scores(0, 80), {"trained": scores(1, 60)}, (), {}) == {}


def test_precision_and_recall_tell_few_kinds_from_foreign_ones() -> None:
    """Real pictures of two kinds; a model that draws one of them, and one that draws both and a third."""
    numbers = np.random.default_rng(0)
    kinds = [numbers.normal(place, 0.1, (50, 2)) for place in (0.0, 5.0, 10.0)]
    real = np.vstack(kinds[:2])
    narrow, wide = kinds[0] + 0.01, np.vstack([kinds[0] + 0.01, kinds[1] + 0.01, kinds[2]])
    precision, recall = precision_recall(real, narrow)
    assert (precision.value, recall.value) == pytest.approx((1.0, 0.5), abs=0.05)
    precision, recall = precision_recall(real, wide)
    assert (precision.value, recall.value) == pytest.approx((2 / 3, 1.0), abs=0.05)


def test_cmmd_of_equally_good_pictures_is_zero_on_average_at_any_number() -> None:
    numbers = np.random.default_rng(1)

    def unit(count: int) -> Any:
        rows = numbers.normal(0.5, 1.0, (count, 6))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    for count in (10, 100):
        found = [KernelYardstick(unit(200), gaussian).measure(unit(count)).value for _ in range(60)]
        assert abs(np.mean(found)) < 3 * np.std(found) / 60**0.5
