"""The business case: its arithmetic, its answers, and the two files that it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline_definition.cli import app
from pipeline_definition.cost.business_case import Answers, answers_of
from pipeline_definition.cost.business_inputs import EXAMPLE_FILE, BusinessCase, load_case
from pipeline_definition.cost.business_page import case_document, case_json
from pipeline_definition.cost.training import CostError
from pipeline_definition.pages.html import to_html
from pipeline_definition.pages.markdown import to_markdown

EXAMPLE = load_case(EXAMPLE_FILE)


def with_(section: str, **fields: Any) -> Answers:
    values = EXAMPLE.model_dump()
    values[section] |= fields
    return answers_of(BusinessCase.model_validate(values))


def test_the_worked_example_is_150_to_200_million_a_year_for_5_million() -> None:
    answers = with_("investment", years=1, months_until_return=0, discount_rate=0.0)
    assert answers.gain_usd_per_year == 50_000_000
    assert answers.return_on_investment == pytest.approx(9.0)
    assert answers.payback_months == pytest.approx(1.2)
    assert answers.net_present_value_usd() == pytest.approx(45_000_000)
    assert answers.break_even_realised == pytest.approx(0.1)


def test_the_net_present_value_discounts_each_month() -> None:
    answers = with_("investment", years=2, months_until_return=6, discount_rate=0.12)
    by_hand = sum(50e6 / 12 / 1.12 ** (month / 12) for month in range(7, 25)) - 5e6
    assert answers.net_present_value_usd() == pytest.approx(by_hand)
    assert answers.payback_months == pytest.approx(6 + 1.2)


def test_a_budget_at_the_justified_one_returns_exactly_what_was_required() -> None:
    found = with_("investment", required_return_on_budget=3.0)
    at_limit = with_("investment", required_return_on_budget=3.0, budget_usd=found.justified_budget_usd)
    assert at_limit.net_present_value_usd() == pytest.approx(3.0 * found.justified_budget_usd)


@given(st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_the_value_rises_with_the_gain_and_is_zero_at_the_break_even(realised: float, less: float) -> None:
    answers = answers_of(EXAMPLE)
    assert answers.net_present_value_usd(realised * less) <= answers.net_present_value_usd(realised)
    assert answers.break_even_realised is not None
    assert answers.net_present_value_usd(answers.break_even_realised) == pytest.approx(0.0, abs=1.0)


def test_at_the_break_even_volume_both_models_cost_the_same() -> None:
    answers = answers_of(EXAMPLE)
    images = answers.break_even_images
    assert images
    custom, pretrained = answers.case.custom, answers.case.pretrained
    assert answers.total_usd(custom, images) == pytest.approx(answers.total_usd(pretrained, images))
    assert answers.total_usd(custom, 2 * images) < answers.total_usd(pretrained, 2 * images)


def test_a_custom_model_that_is_taken_no_more_often_never_breaks_even() -> None:
    answers = with_("custom", accepted_fraction=EXAMPLE.pretrained.accepted_fraction)
    assert answers.break_even_images is None
    assert not answers.custom_is_cheaper
    assert "the open pretrained model is the cheaper" in case_document(answers).lead


def test_without_a_gain_there_is_no_payback_and_the_page_says_so() -> None:
    answers = with_("investment", return_usd_per_year_expected=150_000_000)
    assert answers.payback_months is None and answers.break_even_realised is None
    assert answers.net_present_value_usd() == pytest.approx(-5_000_000)
    assert "does not pay" in case_document(answers).lead
    assert to_html(case_document(answers))


def test_each_use_is_told_by_what_it_does_most() -> None:
    kinds = {answer.use.name: answer.kind for answer in answers_of(EXAMPLE).uses}
    assert list(kinds.values()) == ["cuts cost", "cuts cost", "grows revenue"]
    dear = with_("generation", instance_type="ml.p4d.24xlarge", busy_fraction=1e-6)
    assert all(answer.saving_usd_per_year < 0 for answer in dear.uses)


def test_the_page_stands_alone_and_shows_every_input() -> None:
    document = case_document(answers_of(EXAMPLE))
    page = to_html(document)
    assert not re.findall(r"https?://|<script|<link(?! rel=\"icon\" href=\"data:)", page)
    assert page.count("<svg") == 4
    markdown = to_markdown(document, "business_case.html")
    for text in (
        "1. Where",
        "2. A custom",
        "3. What compute",
        "investment › discount rate",
        "5,000,000",
    ):
        assert text in page and text in markdown


def test_text_from_the_inputs_cannot_become_html() -> None:
    values = EXAMPLE.model_dump() | {"company": "<script>alert(1)</script>"}
    document = case_document(answers_of(BusinessCase.model_validate(values)))
    assert "<script>" not in to_html(document)
    assert "<script>" not in to_markdown(document, "page.html")


def test_the_same_inputs_give_the_same_bytes() -> None:
    assert to_html(case_document(answers_of(EXAMPLE))) == to_html(case_document(answers_of(EXAMPLE)))


def test_the_json_has_the_three_answers() -> None:
    said = case_json(answers_of(EXAMPLE))
    assert said["net_present_value_usd"] > 0 and said["break_even_images"] > 0 and len(said["uses"]) == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [("company: x", "uses"), ("company: [", "not valid YAML"), ("company: x\nnope: 1", "nope")],
)
def test_inputs_that_cannot_be_used_are_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CostError, match=named):
        load_case(file)


def test_an_endpoint_without_a_price_is_named() -> None:
    with pytest.raises(CostError, match=r"ml\.g7\.4xlarge"):
        with_("generation", instance_type="ml.g7.4xlarge")


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["business-case", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["gain_usd_per_year"] == 50_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["business_case.html", "business_case.md"]
