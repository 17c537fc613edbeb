import html
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from pipeline_definition.artifacts import Artifacts
from pipeline_definition.pages import charts
from pipeline_definition.report.page import write_report
from tests.pipeline_definition.report import example_runs

Page = Callable[..., str]
HOSTILE = """</figcaption><script>alert(1)</script><img src=x onerror=alert(2)> "' {{ 7 * 7 }} &amp;"""
FILES = (
    "execution.json",
    "definition.json",
    "parameters.json",
    "shards_manifest.json",
    "latents_manifest.json",
    "tuning.json",
    "training_log.jsonl",
    "lineage.json",
    "metrics.json",
    "samples.json",
    "contact_sheet.png",
    "model_package.json",
    "forecast.json",
)


class Elements(HTMLParser):
    """Collects the elements, the addresses they load and the ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def of(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts out: drawing is most of the time, and their own tests draw."""
    for name in ("curves", "bars", "trade_off", "plane"):
        monkeypatch.setattr(charts, name, lambda *_, **__: Markup(""))


def text_of(page: str) -> str:
    """What a reader sees, in one line."""
    without_style = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", without_style)).split())


@pytest.mark.parametrize("name", ["full", "missed", "broken", "aws", "billed"])
def test_nothing_outside_the_page_is_loaded(page_of: Page, name: str) -> None:
    elements = Elements(page_of(name))
    loaded = [value for key in ("src", "href", "xlink:href", "srcset", "data", "poster") for value in elements.of(key)]
    assert loaded and all(value.startswith(("data:", "#")) for value in loaded)
    assert not {"script", "iframe", "object", "embed", "form"} & set(elements.tags)
    assert not [key for key, _ in elements.attributes if key.startswith("on")]


def test_no_style_reaches_outside(page_of: Page) -> None:
    page = page_of("full")
    assert "@import" not in page
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", page))
    assert "http://" not in page and "https://" not in page


def test_a_policy_forbids_what_the_page_does_not_need(page_of: Page) -> None:
    assert """content="default-src 'none'; img-src data:; style-src 'unsafe-inline';""" in page_of("full")


def test_every_id_is_there_once_and_every_reference_leads_to_one(page_of: Page) -> None:
    elements = Elements(page_of("full"))
    ids = elements.of("id")
    assert len(ids) == len(set(ids))
    pointed = [value[1:] for value in elements.of("href") if value.startswith("#")]
    assert pointed and set(pointed) <= set(ids)


def test_the_headline_answers_how_it_ended_how_good_how_fast_and_at_what_cost(page_of: Page) -> None:
    said = text_of(page_of("full"))
    assert "Passed the quality gate" in said
    assert "FID passes 9.11 gate: at most 25 95 % interval 8.21 to 10.30 untrained: 55.53 real pictures: 1.20" in said
    assert "CLIP score passes 0.811 gate: at least 0.6" in said
    assert "it/s" in said and "Train took 3 min 13 s on 2 × ml.c5.large" in said
    assert "Cost nothing it ran on this machine" in said
    assert "Registered as sd-pipeline-local version 1, waiting for approval." in said


def test_the_quality_section_tells_the_guidance_curve_and_the_comparisons(page_of: Page) -> None:
    said = text_of(page_of("full"))
    assert "FID against CLIP score at each guidance scale, 128 pictures each" in said
    assert "above the generic pretrained model's" in said
    assert "-6.10 to -2.20" in said
    # The first model of all is compared with itself: a line of zeros would tell nothing.
    assert "the approved model's" not in said


def test_a_metric_that_nobody_here_has_heard_of_is_shown_by_its_name_with_what_the_gate_asks(
    page_of: Page, tmp_path: Path
) -> None:
    folder = example_runs.full_run(tmp_path / "new")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["metrics"] |= {
        "fid_of_tomorrow": {"value": 7.25, "low": 6.9, "high": 7.6, "pictures": 256},
        "fid_of_tomorrow_approved": {"value": 8.5, "pictures": 256},
        "fid_of_tomorrow_below_approved": {"value": 1.25, "low": 0.5, "high": 2.0, "pictures": 256},
        "copies": {"value": 0.0, "low": 0.0, "high": 0.0, "pictures": 256},
    }
    definition = json.loads((folder / "definition.json").read_text())
    for name, limit in (("fid_of_tomorrow", 8.0), ("prompt_following", 0.5)):
        asked = {"Type": "LessThanOrEqualTo", "RightValue": limit}
        path = {"Std:JsonGet": {"PropertyFile": "x", "Path": f"metrics.{name}.value"}}
        gate = {"Name": name, "Type": "Condition", "Arguments": {"Conditions": [{**asked, "LeftValue": path}]}}
        definition["Steps"].append(gate)
    for name, value in (("metrics.json", metrics), ("definition.json", definition)):
        example_runs.write_json(folder / name, value)
    said = text_of(page_of(folder))
    assert "fid of tomorrow 7.25 6.90 to 7.60 at most 8 ✓ met" in said
    assert "fid of tomorrow of the approved model 8.50" in said
    assert "fid of tomorrow below the approved model's 1.25 0.50 to 2.00" in said
    assert "copies 0 0 to 0 256" in said
    assert "prompt following – – at most 0.5 ✕ missed" in said, "what the gate asks and nobody measured is said"


def test_a_full_run_shows_every_section(page_of: Page) -> None:
    ids = Elements(page_of("full")).of("id")
    wanted = ["pictures", "steps", "quality", "training", "tuning", "download", "latents", "parameters", "lineage"]
    assert [anchor for anchor in ids if anchor in wanted] == wanted


def test_the_pictures_are_inside(page_of: Page, tmp_path: Path) -> None:
    sources = [value for value in Elements(page_of("full")).of("src") if value.startswith("data:image/png;base64,")]
    assert len(sources) == 1 + len(example_runs.CAPTIONS)
    assert all(caption in text_of(page_of("full")) for caption in example_runs.CAPTIONS)


def test_sections_tell_what_the_artifacts_say(page_of: Page) -> None:
    said = text_of(page_of("full"))
    for fact in (
        "3,871 of the table’s 4,000 rows became samples: 96.8 %.",
        "http 404: 48 (1.2 %)",
        "3,486 samples to train on, 385 held out.",
        "27.8 dB",
        "51,200 samples in 3 min 13 s on 2 × ml.c5.large.",
        "3 trials, random search on validation loss.",
        "fs-5c1b7f0d2e9a44310",
        "1 parameter differs from the defaults.",
    ):
        assert fact in said or fact in page_of("full"), fact


def test_text_from_outside_is_escaped(page_of: Page, tmp_path: Path) -> None:
    folder = example_runs.full_run(tmp_path / "hostile")
    for name, keys in (
        ("samples.json", "caption"),
        ("execution.json", "failure_reason"),
        ("model_package.json", "arn"),
        ("shards_manifest.json", "resize_mode"),
        ("tuning.json", "strategy"),
        ("metrics.json", "sampler"),
        ("definition.json", "Description"),
        ("lineage.json", "prediction_type"),
    ):
        content = json.loads((folder / name).read_text())
        example_runs.write_json(folder / name, replaced(content, keys))
    failed = json.loads((folder / "execution.json").read_text())
    failed["status"], failed["steps"][3]["status"] = "Failed", "Failed"
    failed["steps"][3]["log_tail"] = [HOSTILE]
    example_runs.write_json(folder / "execution.json", failed)
    page = page_of(folder)
    elements = Elements(page)
    assert "script" not in elements.tags and "x" not in elements.of("src") and not elements.of("onerror")
    assert "49" not in re.findall(r"\{\{ 7 \* 7 \}\}|\b49\b", text_of(page))
    assert page.count("&lt;script&gt;alert(1)") >= 8


def replaced(value: object, key: str) -> object:
    """A copy in which every text under `key` is hostile."""
    if isinstance(value, dict):
        return {
            name: HOSTILE if name == key and (item is None or isinstance(item, str)) else replaced(item, key)
            for name, item in value.items()
        }
    return [replaced(item, key) for item in value] if isinstance(value, list) else value


def test_what_is_no_png_is_not_put_into_the_page(page_of: Page, tmp_path: Path) -> None:
    folder = example_runs.full_run(tmp_path / "svg")
    (folder / "contact_sheet.png").write_text("<svg onload='alert(1)'/>")
    assert "Contact sheet" not in page_of(folder)


def test_made_again_the_page_has_the_same_bytes(tmp_path: Path) -> None:
    artifacts = Artifacts.load(example_runs.full_run(tmp_path / "a"))
    write_report(artifacts, tmp_path / "first.html")
    write_report(artifacts, tmp_path / "second.html")
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()


def test_the_folder_may_lie_anywhere(tmp_path: Path) -> None:
    first = example_runs.full_run(tmp_path / "a")
    write_report(Artifacts.load(first), tmp_path / "first.html")
    shutil.move(first, tmp_path / "elsewhere")
    write_report(Artifacts.load(tmp_path / "elsewhere"), tmp_path / "second.html")
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()


def test_a_run_that_failed_says_where_and_why_and_shows_the_last_lines(page_of: Page) -> None:
    said = text_of(page_of("broken"))
    assert "Failed at Train" in said
    assert "rank 1 ended with status 1: CUDA out of memory" in said
    assert "The last lines of its log" in said and "seen_samples=64 training_loss=0.9" in said
    assert "Evaluate FID and CLIP score on held-out captions, and a contact sheet not reached" in said
    assert "1 artifact could not be had" in said
    assert "How good it is" not in said and "What it draws" not in said


def test_a_model_that_missed_the_gate_is_told_from_a_run_that_broke(page_of: Page) -> None:
    said = text_of(page_of("missed"))
    assert "Missed the quality gate" in said
    assert "FID misses the gate 9.11" in said and "CLIP score passes 0.811" in said
    assert "must be at most MaxFid = 5.0" in said
    assert "Registered as" not in said
    assert "Register Model package, waiting for approval not taken" in said


def test_too_few_pictures_for_fid_are_said_and_kid_is_shown_in_its_place(page_of: Page, tmp_path: Path) -> None:
    folder = example_runs.full_run(tmp_path / "few")
    metrics = json.loads((folder / "metrics.json").read_text())
    few = {"judged_by": "kid", "enough_pictures": 96, "dimensions": 64, "pictures": 48}
    metrics["metrics"] |= {
        "fid": {**metrics["metrics"]["fid"], "dimensions": 64, "pictures_per_dimension": 4.0},
        "fid_infinity": {"value": 7.3051, "low": 6.41, "high": 8.2, "pictures": 256, "pictures_per_dimension": 4.0},
        "fid_above_untrained": {"value": 0.0213, "low": -1e9, "high": 1e9, **few},
        "fid_above_pretrained": {"value": -0.0521, "low": -0.07, "high": -0.03, **few},
        "fid_clean": {"value": 9.8, "low": 9.1, "high": 10.5, "pictures": 256, "pictures_per_dimension": 0.125},
        "recall": {"value": 0.61, "low": 0.55, "high": 0.67, "pictures": 400},
    }
    metrics["notes"] = ["judged otherwise than the endpoint serves: it serves with inference_steps=25"]
    example_runs.write_json(folder / "metrics.json", metrics)
    said = text_of(page_of(folder))
    assert "FID of infinitely many 7.31" in said and "256 (4 a feature)" in said
    assert "KID above the untrained model's 0.0213 too few pictures to tell" in said
    assert "KID above the generic pretrained model's" in said
    assert "000" not in said[said.index("KID above the generic") :][:80]
    assert "FID, resized as clean-fid does" in said and "recall" in said
    assert "it serves with inference_steps=25" in said


def test_a_judge_that_cannot_judge_is_named_before_any_figure_and_its_score_is_not_said_to_pass(
    page_of: Page, tmp_path: Path
) -> None:
    folder = example_runs.full_run(tmp_path / "blind")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["warnings"] = ["This judge cannot judge these pictures: any caption will do."]
    metrics["metrics"]["clip_score_margin"] = {"value": 0.001, "low": -0.002, "high": 0.004, "pictures": 256}
    example_runs.write_json(folder / "metrics.json", metrics)
    said = text_of(page_of(folder))
    assert "Passed the quality gate, with a reservation" in said
    assert said.index("This judge cannot judge these pictures") < said.index("FID passes 9.11")
    assert "FID passes 9.11" in said
    assert "CLIP score 0.811" in said and "CLIP score passes" not in said


def test_the_scorecard_has_the_gates_lines_the_trend_and_the_comparison_with_the_approved_version(
    page_of: Page,
) -> None:
    said = text_of(page_of("third"))
    assert "FID 9.11 8.21 to 10.30 at most 25 ✓ met CLIP score 0.811 0.792 to 0.829 at least 0.6 ✓ met" in said
    assert "metric approved, version 1 this run this run is FID 14.2 (12.9 to 15.6) 9.112 (8.21 to 10.3) better" in said
    assert "0.8113 (0.792 to 0.829) no difference that the intervals show" in said
    assert "metric by version 1 approved 2 3 4 this run FID 14.2 40.1 – 9.11 CLIP score 0.811 – – 0.811" in said
    assert "Version 3: s3://bucket/3/metrics.json: gone." in said


def test_the_trend_leaves_out_what_was_measured_otherwise(page_of: Page) -> None:
    page = page_of("third")
    assert "FID by version: 1 14.2; 4 9.11" in page, "version 2 drew fewer pictures, and FID falls with their number"
    assert "CMMD by version: 1 0.420; 4 0.310" in page


def test_a_first_version_and_a_run_without_versions_have_the_gates_lines_alone(page_of: Page) -> None:
    said = text_of(page_of("missed"))
    assert "FID 9.11 8.21 to 10.30 at most 5 ✕ missed CLIP score 0.811" in said
    assert "by version" not in said


def test_the_page_of_copies_is_framed_without_the_right_to_run_scripts(page_of: Page, tmp_path: Path) -> None:
    page = page_of("third")
    assert '<iframe sandbox title="Copies of training pictures" srcdoc="&lt;!doctype html&gt;' in page
    assert "<script>" not in page
    folder = example_runs.third_run(tmp_path / "large")
    (folder / "copies.html").write_text("x" * (4 * 2**20 + 1))
    assert "Too large to be shown here: open copies.html among" in page_of(folder)


def test_on_aws_the_page_adds_up_what_was_paid(page_of: Page) -> None:
    said = text_of(page_of("aws", {"ml.p4d.24xlarge": 24.01, "ml.c5.large": 0.102}))
    # Four jobs of two hosts for an hour, and three trials of 60.5 s on one small host.
    assert "Cost $192.08" in said
    assert "and $0.10 an hour while the endpoint stands" in said
    assert "over US dollars" in said


def test_the_bill_stands_beside_the_forecast(page_of: Page) -> None:
    said = text_of(page_of("billed"))
    # Four jobs at $48.02 against 43.2 + 52.8 + 72 + 48, and trials of a cent each way.
    assert "Its jobs were forecast at $216.01 and cost $192.08: 88.9 % of it." in said
    assert "Train 2 × ml.p4d.24xlarge 1 h 30 min 3 min 13 s $72.00 $48.02" in said
    assert "S3 storage 21 GB, 1 months – – $0.49 –" in said
    assert "prices of 2026-11-24 us-east-1, on demand" in said


def test_the_forecasts_prices_make_the_page_again(page_of: Page) -> None:
    assert "Cost $192.08" in text_of(page_of("billed"))


def test_a_run_on_this_machine_has_no_bill(page_of: Page) -> None:
    assert "What it cost" not in text_of(page_of("full"))


def test_speeds_are_told_by_micro_batch(page_of: Page) -> None:
    said = text_of(page_of("full"))
    assert "16 trial 1 1.90 122 16 trial 3 2.05 131" in said
    assert "32 trial 2 2.60 166" in said


def test_on_aws_without_prices_the_page_tells_the_hours(page_of: Page) -> None:
    said = text_of(page_of("aws"))
    assert "Cost 8.02 instance-hours no prices were given" in said


@pytest.mark.parametrize("name", FILES)
def test_any_artifact_may_be_missing(page_of: Page, tmp_path: Path, name: str, undrawn: None) -> None:
    folder = example_runs.billed_run(tmp_path / "partial")
    (folder / name).unlink()
    assert "</html>" in page_of(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_any_field_may_be_missing(page_of: Page, tmp_path: Path, name: str, undrawn: None) -> None:
    folder = example_runs.billed_run(tmp_path / "partial")
    content = json.loads((folder / name).read_text())
    example_runs.write_json(folder / name, {})
    assert "</html>" in page_of(folder)
    for key in content:
        example_runs.write_json(folder / name, {other: value for other, value in content.items() if other != key})
        assert "</html>" in page_of(folder), key


def test_figures_that_are_none_hide_their_rows(page_of: Page, tmp_path: Path) -> None:
    folder = example_runs.full_run(tmp_path / "nan")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["metrics"]["fid"]["value"] = float("nan")
    metrics["metrics"]["clip_score"]["value"] = None
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "training_log.jsonl").write_text('{"seen_samples": "many", "training_loss": NaN}\n{"seen_samples": 64}\n')
    said = text_of(page_of(folder))
    assert "nan" not in said.lower().split()
    assert "FID is" not in said and "CLIP score is" not in said


def test_an_empty_folder_still_gives_a_page(page_of: Page, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "Still running" in text_of(page_of(tmp_path / "empty"))


def test_a_cached_step_says_so(page_of: Page) -> None:
    assert "Download img2dataset: url table to verified WebDataset shards, straight to S3 cached" in text_of(
        page_of("broken")
    )
