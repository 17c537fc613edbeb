"""Copies of training pictures among drawn ones: planted ones are found, and what copies nothing raises no alarm."""

import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load

from params.heldout import is_heldout
from params.layout import COPIES, COPIES_REAL, COPIES_REPEATED, DESCRIPTORS, LATENTS, REFERENCE
from params.programs import EncodeArguments, EvaluateArguments
from shapes import captions
from steps.artifact import publish
from steps.container import Cluster, Container
from steps.data.encoding.decoding import decode, planned_samples
from steps.data.encoding.descriptors import (
    DescriptorsManifest,
    DescriptorsRecord,
    repeated_captions,
    write_descriptors,
)
from steps.data.encoding.encoder import BlockDescriber, BlockEncoder
from steps.data.encoding.latents_artifact import LatentsRecord, write_shard
from steps.data.encoding.plan import PlannedShard
from steps.data.encoding.ray_encoding import EncodeJob
from steps.data.storage import Storage
from steps.encode import Encode
from steps.errors import StepError
from steps.evaluation.captions import Prompt
from steps.evaluation.copies import CopySearch
from steps.evaluation.generation import ModelSource, PictureSet, Work
from steps.evaluation.generator import SamplingSettings
from steps.evaluation.reference import Pictures, Reference
from steps.evaluation.results import Entries
from steps.evaluation.training_pictures import TrainingPictures
from steps.model.pretrained import load_vae
from steps.ray_cluster import leading
from tests.shapes.stored import as_stored
from tests.steps.data.shapes_shards import PRETRAINED, write_shards

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:::ray")]

GRID = captions.every()
# Every tenth caption of the grid is in the set, 208 of the 392 twice.
STEP, SIZES = 10, [400, 200]
HELDOUT = 0.3


@dataclass
class World:
    folder: Path

    def arguments(self, **settings: object) -> EncodeArguments:
        places = {f"{name}_uri": str(self.folder / name) for name in ("shards", LATENTS, REFERENCE, DESCRIPTORS)}
        sizes = {"resolution_px": 64, "batch_size": 32, "rows_per_block": 32, "rows_per_shard": 128, "workers": 1}
        return EncodeArguments.model_validate(
            {**places, **sizes, "heldout_fraction": HELDOUT, "max_heldout_samples": 80, **settings}
        )

    def encode(self, **settings: object) -> dict[str, dict[str, bytes]]:
        arguments = self.arguments(**{"descriptors": "clip", **settings})
        encode = Encode(arguments, self.folder / "manifest.json", PRETRAINED, PRETRAINED.with_name("evaluator"))
        artifacts = encode.run()
        for name, files in artifacts.items():
            publish(self.folder / name, files)
        assert encode.published() == artifacts
        return artifacts

    def search(self) -> CopySearch:
        inputs = self.folder / "processing" / "input"
        inputs.mkdir(parents=True, exist_ok=True)
        if not (inputs / "evaluator").exists():
            (inputs / "evaluator").symlink_to(PRETRAINED.with_name("evaluator"))
        container = Container({"SAGEMAKER_BASE_DIR": str(self.folder)})
        places = {"descriptors_uri": str(self.folder / DESCRIPTORS), "shards_uri": str(self.folder / "shards")}
        return CopySearch(container, EvaluateArguments(repeated_samples=12, **places), torch.device("cpu"))

    def judge(self, drawn: Pictures, folder: Path, repeated: bool = False) -> Entries:
        """Look for copies among pictures, as if the model had drawn them."""
        search, source = self.search(), ModelSource(PRETRAINED, "")
        prompts = [Prompt(index, f"<prompt> {index}", index, None) for index in range(len(drawn))]
        drawing = SamplingSettings(1.0, 1, "ddim", 64, 64)
        row = PictureSet("trained", source, drawing, prompts, folder / "drawn", {}, "")
        work = Work([row], EvaluateArguments())
        if repeated:
            work = search.planned(work, folder)
        for number, one in enumerate(work.rows):
            pictures = drawn if number == 0 else stored([captions.parse(prompt.caption) for prompt in one.prompts])
            one.store().write(one.indices, pictures)
        vae = load_vae(PRETRAINED, torch.float32)
        return search.entries(work, Reference(self.folder / REFERENCE), vae, folder)


def encode_here(
    job: EncodeJob, shards: Sequence[PlannedShard], on_rows: Callable[[int], None]
) -> Iterator[LatentsRecord | DescriptorsRecord]:
    """Encode in this process: tests/steps/test_encode.py does so on Ray, whose workers take long to start."""
    worker = BlockDescriber(job.encoder) if job.describes else BlockEncoder(job.encoder)
    write = write_descriptors if job.describes else write_shard
    for shard in shards:
        blocks, first, size = [], shard.first_row, job.source.plan.selection.buckets.sizes[shard.bucket]
        for number, rows in enumerate(shard.block_rows):
            samples = planned_samples(job.source, shard.split, first, rows)
            pixels, texts = np.stack([decode(one, size) for one in samples]), [one.caption for one in samples]
            blocks.append(worker((shard.name, number), pixels, texts, []))
            first += rows
        on_rows(shard.rows)
        yield write(Storage(job.uri), job.plan_digest, shard, blocks)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("copies"))
    manifest = write_shards(str(world.folder / "shards"), SIZES, step=STEP)
    (world.folder / "manifest.json").write_text(manifest.model_dump_json())
    with (
        leading(Cluster(("localhost",), "localhost", "localhost", 1, 2), "test", 60),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("steps.encode.encode_shards", encode_here)
        world.encode()
        yield world


def stored(of: list[captions.Caption]) -> Pictures:
    return np.stack([as_stored(caption) for caption in of])


def trained(world: World) -> list[captions.Caption]:
    return [one for one in GRID[::STEP] if not is_heldout(one.text(), HELDOUT)]


def clean(world: World) -> list[captions.Caption]:
    """Captions that no training saw, and that are not in the reference either, which holds 80 of them."""
    reference = Reference(world.folder / REFERENCE).captions
    others = (one for one in GRID[::STEP] if is_heldout(one.text(), HELDOUT))
    return [one for one in others if one.text() not in reference]


def as_a_copy(picture: Pictures) -> Pictures:
    """A picture that was saved once more, in poorer quality."""
    saved = io.BytesIO()
    Image.fromarray(picture).save(saved, "JPEG", quality=75)
    with Image.open(saved) as opened:
        return np.asarray(opened.convert("RGB"))


def test_pictures_that_copy_nothing_raise_no_alarm(world: World, tmp_path: Path) -> None:
    entries = world.judge(stored(clean(world)), tmp_path)
    assert entries[COPIES]["value"] == entries[COPIES_REAL]["value"] == 0.0
    assert 0.0 == entries[COPIES]["low"] < entries[COPIES]["high"] < 0.1
    assert entries[COPIES]["normal"] < entries[COPIES]["threshold"] < entries[COPIES]["copied"]


def test_every_planted_copy_is_found_and_shown_beside_its_original(world: World, tmp_path: Path) -> None:
    planted = trained(world)[::12]
    drawn = np.concatenate([stored(clean(world)), np.stack([as_a_copy(one) for one in stored(planted)])])
    entries = world.judge(drawn, tmp_path, repeated=True)
    assert entries[COPIES]["value"] == len(planted) / len(drawn)
    assert entries[COPIES]["low"] < entries[COPIES]["value"] < entries[COPIES]["high"]
    assert entries[COPIES_REPEATED]["value"] == 1.0
    assert {entries[key]["threshold"] for key in (COPIES, COPIES_REAL)} == {entries[COPIES]["threshold"]}
    page = (tmp_path / "copies.html").read_text()
    assert page.count('<figure class="copy">') == min(40, len(planted) + 12)
    assert "&lt;prompt&gt;" in page and "<prompt>" not in page
    assert "http" not in page


def test_descriptors_come_later_without_a_new_latent_and_are_not_made_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def recorded(job: EncodeJob, missing: list[PlannedShard], on_rows: Callable[[int], None]) -> object:
        made.extend(f"{job.describes} {shard.name}" for shard in missing)
        return encode_here(job, missing, on_rows)

    monkeypatch.setattr("steps.encode.encode_shards", recorded)
    (world.folder / DESCRIPTORS / "train-00001.descriptors.safetensors").unlink()
    (world.folder / DESCRIPTORS / "manifest.json").unlink()
    before = (world.folder / LATENTS / "manifest.json").read_bytes()
    artifacts = world.encode()
    assert made == ["True train-00001.tar"]
    assert artifacts[LATENTS]["manifest.json"] == before
    manifest = DescriptorsManifest.model_validate_json(artifacts[DESCRIPTORS]["manifest.json"])
    assert manifest.samples == sum(file.rows for file in manifest.files) == len(trained_rows())
    # 128 numbers of the CLIP and 8 x 8 x 3 colours, 2 bytes each, behind a short header.
    assert manifest.files[0].bytes - 128 * (128 + 192) * 2 < 200
    content = (world.folder / DESCRIPTORS / manifest.files[0].name).read_bytes()
    lengths = np.linalg.norm(load(content)["descriptor"].astype(float), axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-3)


def test_the_most_repeated_captions_are_found_in_little_memory(world: World) -> None:
    source = world.search()._training._source
    times = Counter(trained_rows())
    every = dict(repeated_captions(source))
    assert every == {caption: count for caption, count in times.items() if count > 1}
    # With room for 300 captions none can be sure; what is counted is never more than there is.
    some = dict(repeated_captions(source, 100))
    assert all(count <= times[caption] for caption, count in some.items())


def trained_rows() -> list[str]:
    texts = [GRID[number * STEP % len(GRID)].text() for number in range(sum(SIZES))]
    return [text for text in texts if not is_heldout(text, HELDOUT)]


def test_the_nearest_picture_is_that_of_a_search_over_all_at_once(world: World) -> None:
    training = world.search()._training
    descriptors = np.concatenate(
        [load((world.folder / DESCRIPTORS / file.name).read_bytes())["descriptor"] for file in training._manifest.files]
    )
    asked = np.random.default_rng(0).permutation(descriptors)[:50]
    asked[25:] = asked[25:][:, ::-1]
    found = training.nearest(asked)
    similarities = asked.astype(np.float32) @ descriptors.astype(np.float32).T
    np.testing.assert_allclose(found.similarities, similarities.max(1), atol=1e-5)
    captions_of = [training.sample(row).caption for row in range(len(training))]
    expected = [captions_of[int(row)] for row in similarities[:25].argmax(1)]
    assert [captions_of[int(row)] for row in found.rows[:25]] == expected
    assert training.sample(int(found.rows[0])).caption in trained_rows()


def test_another_model_than_the_one_that_described_them_is_refused(world: World, tmp_path: Path) -> None:
    shutil.copytree(PRETRAINED.with_name("evaluator") / "clip", tmp_path / "clip")
    (tmp_path / "clip" / "config.json").write_text("{}")
    with pytest.raises(StepError, match="not the model that described the training pictures; run Encode again"):
        world.search()._training.describer(tmp_path, torch.device("cpu"))
    with pytest.raises(StepError, match="not the descriptors that Encode writes"):
        TrainingPictures(str(tmp_path), str(tmp_path))
    with pytest.raises(StepError, match="descriptors: a model and a place, descriptors_uri, go together"):
        world.encode(descriptors_uri="")


def test_a_damaged_file_of_descriptors_is_refused(world: World) -> None:
    path = world.folder / DESCRIPTORS / "train-00000.descriptors.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(StepError, match="not, to the bit, what Encode wrote"):
        world.search()._training.nearest(np.zeros((1, 320), np.float16))
    path.write_bytes(content)
