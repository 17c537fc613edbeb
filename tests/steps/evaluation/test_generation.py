"""The pictures of a job are the same for any number of workers, and after an interruption."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from params.programs import EvaluateArguments
from steps.errors import StepError
from steps.evaluation import generation
from steps.evaluation.captions import Captions, choose_prompts
from steps.evaluation.generation import TRAINED, ModelSource, Work, draw_in_processes, generate, plan
from steps.evaluation.generator import PictureGenerator
from steps.evaluation.reference import Pictures
from steps.model.families import load_pipeline
from steps.progress import Progress
from tests.steps.evaluation.conftest import CAPTIONS, SIZE_PX

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ARGUMENTS = EvaluateArguments(
    samples=10,
    batch_size=4,
    untrained_samples=5,
    grid_samples=0,
    inference_steps=2,
    sampler="dpm++",
    precision="float32",
)

MakeWork = Callable[..., Work]


@pytest.fixture
def make_work(tmp_path: Path, pipeline_dir: Path) -> MakeWork:
    def make(folder: str = "samples", **changes: Any) -> Work:
        arguments = ARGUMENTS.model_copy(update=changes)
        captions = Captions(CAPTIONS, range(len(CAPTIONS)))
        prompts = choose_prompts(captions, arguments.samples, arguments.seed)
        sources = {TRAINED: ModelSource(pipeline_dir, "digest")}
        folders = (tmp_path / folder, tmp_path / f"{folder}-others")
        return plan(arguments, sources, prompts, captions.digest, SIZE_PX, folders)

    return make


def pictures(work: Work) -> list[Pictures]:
    return [row.store().read(row.indices) for row in work.rows]


def test_both_models_draw_the_same_prompts_differently(make_work: MakeWork) -> None:
    work = make_work()
    generate(work, ["cpu"])
    trained, untrained = pictures(work)
    assert (len(trained), len(untrained)) == (10, 5)
    assert np.abs(trained[:5].astype(int) - untrained).mean() > 1


def test_the_untrained_model_can_be_left_out(make_work: MakeWork) -> None:
    assert [row.name for row in make_work(untrained_samples=0).rows] == ["trained"]


def test_an_interrupted_job_ends_with_the_same_bits(make_work: MakeWork, monkeypatch: pytest.MonkeyPatch) -> None:
    unbroken, broken = make_work(), make_work("broken")
    generate(unbroken, ["cpu"])
    draw, batches = PictureGenerator.draw, list[Any]()

    def dying_draw(self: PictureGenerator, prompts: Any) -> Pictures:
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(prompts)
        return draw(self, prompts)

    monkeypatch.setattr(PictureGenerator, "draw", dying_draw)
    with pytest.raises(KeyboardInterrupt):
        generate(broken, ["cpu"])
    # Killed between two files of a batch.
    broken.rows[0].store().path(6).rename(broken.rows[0].folder / ".000006.png.123.4.partial")
    redrawn: list[int] = []

    def counting_draw(self: PictureGenerator, prompts: Any) -> Pictures:
        redrawn.append(len(prompts))
        return draw(self, prompts)

    monkeypatch.setattr(PictureGenerator, "draw", counting_draw)
    generate(broken, ["cpu"])
    assert redrawn == [4, 2, 4, 1], "the first batch is kept, the broken one is drawn again as a whole"
    assert not list(broken.rows[0].folder.glob("*.partial"))
    assert all(np.array_equal(*pair) for pair in zip(pictures(unbroken), pictures(broken), strict=True))


def test_a_finished_job_loads_no_model(make_work: MakeWork, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(make_work(), ["cpu"])
    monkeypatch.setattr(generation, "load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    generate(make_work(), ["cpu"])


def test_another_setting_draws_anew(make_work: MakeWork) -> None:
    generate(make_work(), ["cpu"])
    first = pictures(make_work())[0]
    generate(make_work(guidance_scale=1.0), ["cpu"])
    assert not np.array_equal(first, pictures(make_work(guidance_scale=1.0))[0])


def test_rows_of_a_curve_draw_the_first_prompts_at_their_own_scale(make_work: MakeWork) -> None:
    work = make_work(guidance_grid=(1.0, 8.0, 5.0), grid_samples=4)
    assert [row.name for row in work.rows] == ["trained", "guidance-1", "guidance-5", "untrained"]
    generate(work, ["cpu"])
    drawn = dict(zip((row.name for row in work.rows), pictures(work), strict=True))
    alone = make_work("alone", guidance_scale=5.0)
    generate(alone, ["cpu"])
    assert np.array_equal(drawn["guidance-5"], pictures(alone)[0][:4])
    assert not np.array_equal(drawn["guidance-1"], drawn["guidance-5"])


def test_a_longer_evaluation_takes_over_the_whole_batches_of_a_shorter_one(
    make_work: MakeWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = f"file://{tmp_path}/mirror"
    generate(make_work("short", samples=8, untrained_samples=0, samples_uri=mirror), ["cpu"])
    longer = make_work("long", samples=12, untrained_samples=0, samples_uri=mirror)
    draw, drawn = PictureGenerator.draw, list[int]()

    def counting_draw(self: PictureGenerator, prompts: Any) -> Pictures:
        drawn.extend(prompt.index for prompt in prompts)
        return draw(self, prompts)

    monkeypatch.setattr(PictureGenerator, "draw", counting_draw)
    generate(longer, ["cpu"])
    assert drawn == [8, 9, 10, 11]
    cut = make_work("cut", samples=10, untrained_samples=0, samples_uri=mirror)
    assert cut.rows[0].mirror != longer.rows[0].mirror, "its last batch is rounded otherwise"


def test_two_hosts_share_the_work_through_the_mirror(make_work: MakeWork, tmp_path: Path) -> None:
    alone = make_work("alone")
    generate(alone, ["cpu"])
    hosts = [make_work(f"host{host}", samples_uri=f"file://{tmp_path}/mirror") for host in range(2)]
    generate(hosts[1], ["cpu"], host=1, hosts=2)
    own = [len(row.prompts) - len(row.store().missing(row.indices)) for row in hosts[1].rows]
    assert own == [4, 1], "every second batch"
    generate(hosts[0], ["cpu"], host=0, hosts=2)
    assert all(np.array_equal(*pair) for pair in zip(pictures(alone), pictures(hosts[0]), strict=True))
    # On a new volume the second one fetches its own share again, and not the first one's pictures.
    again = make_work("again", samples_uri=f"file://{tmp_path}/mirror")
    generate(again, ["cpu"], host=1, hosts=2)
    assert [len(row.prompts) - len(row.store().missing(row.indices)) for row in again.rows] == own


def test_a_worker_process_draws_its_share(
    make_work: MakeWork, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # How many threads share a sum decides how it is rounded.
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    alone, shared = make_work("alone"), make_work("shared")
    generate(alone, ["cpu"])
    draw_in_processes(shared, ["cpu"], first=1, world_size=2, progress=Progress("generate", 15, "pictures"))
    trained, untrained = shared.rows
    assert (trained.store().missing(range(10)), untrained.store().missing(range(5))) == (
        [0, 1, 2, 3, 8, 9],
        [0, 1, 2, 3],
    )
    assert np.array_equal(trained.store().read(range(4, 8)), pictures(alone)[0][4:8])
    assert "PROGRESS" in capfd.readouterr().out


def test_a_failure_in_a_worker_process_is_told_in_its_own_words(make_work: MakeWork, tmp_path: Path) -> None:
    work = make_work()
    trained = work.rows[0]
    pipeline: Any = load_pipeline(trained.source.folder, torch.float32)
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(float("nan"))
    pipeline.save_pretrained(tmp_path / "broken", safe_serialization=True)
    with pytest.raises(StepError, match=r"^picture \d+ \('a .*'\) is not a number"):
        draw_in_processes(
            replace(work, rows=[replace(trained, source=ModelSource(tmp_path / "broken", "broken"))]),
            ["cpu"],
            0,
            1,
            Progress("generate", 10, "pictures"),
        )
