"""The business case: its arithmetic, its answers, and the two files that it writes."""

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
from pipeline_definition.prompting.votes import Choice
from tests.pipeline_definition.prompting.test_preference import cast, vote

EXAMPLE = load_case(EXAMPLE_FILE)


def with_(section: str, **fields: Any) -> Answers:
    values = EXAMPLE.model_dump(exclude_none=True, exclude={"ranges"})
    values[section] = values.get(section, {}) | fields
    return answers_of(BusinessCase.model_validate(values))


def read(old: str, new: str) -> str:
    """Return the example's text with something else in it."""
    return EXAMPLE_FILE.read_text(encoding="utf-8").replace(old, new)


def test_a_custom_model_is_credited_only_with_what_it_adds_over_the_open_one() -> None:
    """By the example's own figures, to the dollar: an accepted picture costs $0.640 or $1.409."""
    answers = answers_of(EXAMPLE)
    custom, pretrained = answers.case.custom, answers.case.pretrained
    assert answers.usd_per_accepted_image(custom) == pytest.approx(0.640, abs=5e-4)
    assert answers.usd_per_accepted_image(pretrained) == pytest.approx(1.409, abs=5e-4)
    assert answers.defender_name == "pretrained"
    assert answers.added_usd_per_year == pytest.approx(5_839_134, abs=20)
    assert answers.net_present_value_usd() == pytest.approx(6_955_180, abs=20)
    assert answers.justified_budget_usd == pytest.approx(2_988_795, abs=20)


def test_a_custom_model_that_nobody_prefers_does_not_pay_and_the_page_says_from_which_fraction_it_would() -> None:
    answers = with_("custom", accepted_fraction=EXAMPLE.pretrained.accepted_fraction)
    assert answers.added_usd_per_year == 0.0 and not answers.pays and answers.justified_budget_usd == 0.0
    said = case_document(answers).lead
    assert "does not pay" in said and "adds nothing over the open pretrained model" in said
    turn = answers.break_even_of("custom.accepted_fraction")
    assert turn is not None and f"it pays from {turn:.1%}"[:-1] in said.replace(" %", "%")
    for fraction, pays in ((turn - 1e-6, False), (turn + 1e-6, True)):
        assert with_("custom", accepted_fraction=fraction).pays is pays


def test_the_best_of_the_models_that_take_less_is_what_a_custom_one_has_to_beat() -> None:
    tuned = with_("fine_tuned", accepted_fraction=0.5, setup_usd=90_000.0)
    assert tuned.defender_name == "fine_tuned"
    assert tuned.added_usd_per_year < 1e6
    bought = with_("api", accepted_fraction=0.25, usd_per_picture=0.0)
    assert bought.usd_per_accepted_image(bought.case.candidates["api"]) == pytest.approx(0.35 / 0.25)
    assert bought.defender_name == "api"


def test_where_no_other_model_pays_a_custom_one_is_held_against_doing_nothing() -> None:
    poor = EXAMPLE.model_copy(update={"api": None})
    answers = answers_of(poor.changed("pretrained.accepted_fraction", 0.001))
    assert answers.defender_name == "nothing" and answers.defender_usd_per_year == 0.0
    assert answers.added_usd_per_year == answers.gain_of(answers.case.custom)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("custom", "failure_probability", 0.3),
        ("custom", "wrong_fraction", 0.2),
        ("investment", "ramp_up_months", 12),
        ("investment", "months_until_return", 12),
    ],
)
def test_a_risk_a_delay_and_a_mistake_make_it_worth_less(section: str, field: str, value: float) -> None:
    costly = EXAMPLE.changed("usd_per_wrong_picture", 2.0)
    worse = answers_of(costly.changed(f"{section}.{field}", value))
    assert worse.net_present_value_usd() < answers_of(costly).net_present_value_usd()


def test_hours_saved_count_at_their_wage() -> None:
    paid = answers_of(EXAMPLE.changed("uses.0.usd_per_hour_saved", 30.0))
    more = paid.gain_of(paid.case.custom) - answers_of(EXAMPLE).gain_of(EXAMPLE.custom)
    assert more == pytest.approx(1_200_000 * 5.8 * 30.0)
    assert paid.added_usd_per_year == pytest.approx(answers_of(EXAMPLE).added_usd_per_year)


def test_the_net_present_value_discounts_each_month() -> None:
    answers = with_("investment", years=2, months_until_return=6, discount_rate=0.12)
    added = answers.added_usd_per_year
    by_hand = sum(added / 12 / 1.12 ** (month / 12) for month in range(7, 25)) - 5e6
    assert answers.net_present_value_usd() == pytest.approx(by_hand)
    assert answers.payback_months == pytest.approx(6 + 12 * 5e6 / added)


def test_a_budget_at_the_justified_one_returns_exactly_what_was_required() -> None:
    found = with_("investment", required_return_on_budget=3.0)
    at_limit = with_("investment", required_return_on_budget=3.0, budget_usd=found.justified_budget_usd)
    assert at_limit.net_present_value_usd() == pytest.approx(3.0 * found.justified_budget_usd)


@given(st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_the_value_rises_with_what_comes_true(realised: float, less: float) -> None:
    answers = answers_of(EXAMPLE)
    assert answers.net_present_value_usd(realised * less) <= answers.net_present_value_usd(realised)


def test_the_inputs_that_move_the_value_most_stand_first_and_within_their_stated_ranges() -> None:
    swings = answers_of(EXAMPLE).swings
    spans = [abs(swing.high_usd - swing.low_usd) for swing in swings]
    assert spans == sorted(spans, reverse=True)
    stated = {swing.path: (swing.low, swing.high) for swing in swings if swing.is_stated}
    assert stated["custom.accepted_fraction"] == (0.40, 0.65)


def test_the_two_way_table_changes_sign_where_neither_model_is_better() -> None:
    table = answers_of(EXAMPLE).table_of((0.25, 0.55))
    assert table[1][0] > 0 > table[0][1]
    assert table[0][0] == table[1][1] == -EXAMPLE.investment.budget_usd


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
    assert answers.cheapest_name == "pretrained"


def test_without_a_gain_there_is_no_payback_and_the_page_says_so() -> None:
    answers = with_("custom", accepted_fraction=0.1)
    assert answers.payback_months is None
    assert "never paid back" in case_document(answers).lead
    assert to_html(case_document(answers))


def test_each_use_is_told_by_what_it_does_most() -> None:
    kinds = {answer.use.name: answer.kind for answer in answers_of(EXAMPLE).uses}
    assert list(kinds.values()) == ["cuts cost", "cuts cost", "grows revenue"]
    dear = answers_of(EXAMPLE.model_copy(update={"api": None}).changed("generation.busy_fraction", 1e-6))
    assert all(answer.saving_usd_per_year < 0 for answer in dear.uses)


def test_the_page_stands_alone_and_shows_every_input() -> None:
    document = case_document(answers_of(EXAMPLE))
    page = to_html(document)
    assert not re.findall(r"https?://|<script|<link(?! rel=\"icon\" href=\"data:)", page)
    assert page.count("<svg") == 4 and "35 seconds of a person" in page
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
    assert said["net_present_value_usd"] > 0 and said["break_even_images"] > 0 and len(said["in_words"]) == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("company: x", "uses"),
        ("company: [", "not valid YAML"),
        ("company: x\nnope: 1", "nope"),
        (read("ranges:", "ranges:\n  custom.height: {low: 1}"), "custom.height is no number of this file"),
        (read("low: 0.40, high: 0.65", "low: 0.6, high: 0.65"), "0.55, outside its own range"),
    ],
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
    assert json.loads(result.stdout)["pays"] is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["business_case.html", "business_case.md"]


@pytest.mark.parametrize(("choice", "pays"), [("first", True), ("neither", False), ("second", False)])
def test_a_model_that_voters_do_not_prefer_is_credited_with_no_more_than_the_open_one(
    tmp_path: Path, choice: Choice, pays: bool
) -> None:
    cast(tmp_path / "votes.jsonl", [vote(number, choice, ("trained", "generic")) for number in range(24)])
    words = ["business-case", "--out", str(tmp_path / "out"), "--json", "--votes", str(tmp_path / "votes.jsonl")]
    told = json.loads(CliRunner().invoke(app, words).stdout)
    assert told["pays"] is pays and told["votes"]
    assert told["votes"].split(".")[0] in (tmp_path / "out" / "business_case.html").read_text(encoding="utf-8")


def test_votes_on_other_models_are_refused_with_their_names(tmp_path: Path) -> None:
    cast(tmp_path / "votes.jsonl", [vote(1, "first")])
    words = ["business-case", "--out", str(tmp_path / "out"), "--votes", str(tmp_path / "votes.jsonl")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert "there are votes on a, b" in f"{refused.output}{refused.exception}"
