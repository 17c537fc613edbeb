from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from params.settings import Settings, SettingsError, load_settings, parse_settings

PARAMETER_SETS = sorted(Path("params").glob("*.yaml"))


@pytest.mark.parametrize("path", PARAMETER_SETS, ids=lambda path: path.stem)
def test_every_parameter_set_loads(path):
    assert load_settings(path).pipeline_name


def test_an_empty_set_is_the_defaults():
    assert parse_settings("", "x.yaml") == Settings()


def test_unknown_key_names_file_key_and_nearest():
    with pytest.raises(
        SettingsError, match=r"x\.yaml: unknown key train\.learning_rat; did you mean train\.learning_rate\?"
    ):
        parse_settings("train: {learning_rat: 1}", "x.yaml")


def test_unknown_section_without_a_near_name_lists_the_known():
    with pytest.raises(SettingsError, match=r"unknown key zzzzz; known: pipeline_name, "):
        parse_settings("zzzzz: 1", "x.yaml")


def test_bad_value_names_file_and_key():
    with pytest.raises(SettingsError, match=r"x\.yaml: gate\.max_fid: .*'low'"):
        parse_settings("gate: {max_fid: low}", "x.yaml")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: cannot be read"):
        load_settings(tmp_path / "nowhere.yaml")


def test_alias_bomb_is_refused():
    bomb = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]\n"
    with pytest.raises(SettingsError, match="aliases are not allowed"):
        parse_settings(bomb, "bomb.yaml")


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, '{"gate":' * 5000, "- " * 5000 + "x"])
def test_a_bomb_of_brackets_is_refused(text):
    with pytest.raises(SettingsError, match=r"deep\.yaml: not valid YAML: nested too deeply"):
        parse_settings(text, "deep.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"gate: \xff\xfe")
    with pytest.raises(SettingsError, match=r"binary\.yaml: not UTF-8 text: byte 6 is 0xff"):
        load_settings(tmp_path / "binary.yaml")


def test_json_is_a_parameter_set_too_and_its_unknown_keys_are_named(tmp_path):
    (tmp_path / "x.json").write_text('{"gate": {"max_fid": 7}}')
    assert load_settings(tmp_path / "x.json").gate.max_fid == 7
    (tmp_path / "x.json").write_text('{"gate": {"max_fidd": 7, "__class__": {"os": "system"}}}')
    with pytest.raises(
        SettingsError, match=r"unknown key gate\.max_fidd; did you mean gate\.max_fid\?.*gate\.__class__"
    ):
        load_settings(tmp_path / "x.json")


def test_key_that_stands_twice_is_refused():
    with pytest.raises(SettingsError, match="key 'max_fid' stands twice"):
        parse_settings("gate: {max_fid: 1, max_fid: 2}", "x.yaml")


def test_python_objects_are_refused():
    with pytest.raises(SettingsError, match="not valid YAML"):
        parse_settings("!!python/object/apply:os.system ['true']", "x.yaml")


@given(st.text(max_size=200))
def test_any_text_loads_or_is_refused_with_the_file_named(text):
    try:
        parse_settings(text, "any.yaml")
    except SettingsError as error:
        assert str(error).startswith("any.yaml: ")


LORA = "train: {initial_weights: pretrained, lora_rank: 8, lora_text_encoder: true}\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("encode: {caption_embeddings: true}", "lora_text_encoder.*set encode.caption_embeddings to false"),
        ("phase_2: {resolution_px: 512}", "train.lora_rank: a LoRA is one training; leave phases out"),
    ],
)
def test_what_a_lora_cannot_go_with_is_refused(more, said):
    assert parse_settings(LORA, "x.yaml").train.lora_rank == 8
    with pytest.raises(SettingsError, match=said):
        parse_settings(LORA + more, "x.yaml")


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings().pipeline_name = "other"  # type: ignore[misc]


def models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= models(field.annotation)
    return found


@pytest.mark.parametrize("model", sorted(models(Settings), key=lambda m: m.__name__), ids=lambda m: m.__name__)
def test_every_setting_or_its_section_says_what_it_is(model):
    for name, field in model.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        text = field.annotation.__doc__ if is_section else field.description
        assert text, f"{model.__name__}.{name} has no docstring"


def test_evaluate_draws_as_the_endpoint_does_where_it_names_no_way_of_its_own() -> None:
    served = "endpoint: {sampler: euler, inference_steps: 30, precision: bfloat16}\n"
    drawn = parse_settings(served, "set").evaluate
    assert (drawn.sampler, drawn.inference_steps, drawn.precision, drawn.guidance_scale) == (
        "euler",
        30,
        "bfloat16",
        7.5,
    )
    named = parse_settings(f"{served}evaluate: {{sampler: ddim, samples: 100}}\n", "set").evaluate
    assert (named.sampler, named.inference_steps, named.samples) == ("ddim", 30, 100)
    assert Settings.model_validate(parse_settings(served, "set").model_dump()).evaluate == drawn


def test_what_is_wrong_in_a_section_that_is_none_is_still_said() -> None:
    with pytest.raises(SettingsError, match="evaluate"):
        parse_settings("evaluate: 5\n", "set")


def test_only_an_asynchronous_endpoint_may_take_its_time():
    assert parse_settings("endpoint: {asynchronous: true, invocation_timeout_s: 1800}", "x.yaml")
    with pytest.raises(SettingsError, match=r"timeout_s is below 60"):
        parse_settings("endpoint: {timeout_s: 600}", "x.yaml")
