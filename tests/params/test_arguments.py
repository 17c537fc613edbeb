import pytest
from hypothesis import given
from hypothesis import strategies as st

from params.arguments import ArgumentError, from_environment, from_texts, parse, to_environment, to_flags, to_text
from params.programs import (
    DownloadArguments,
    EncodeArguments,
    EvaluateArguments,
    ServeArguments,
    TrainArguments,
)

PROGRAMS = [DownloadArguments, EncodeArguments, TrainArguments, EvaluateArguments, ServeArguments]
ADDRESSES = {name: "s3://bucket/x" for name in ("url_table", "shards_uri", "latents_uri", "reference_uri")}


@pytest.mark.parametrize("program", PROGRAMS)
def test_defaults_survive_the_command_line(program):
    required = {name: ADDRESSES[name] for name, field in program.model_fields.items() if field.is_required()}
    settings = program(**required)
    assert parse(program, to_flags(settings.model_dump()), "program") == settings


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_field_says_what_it_is(program):
    for name, field in program.model_fields.items():
        assert field.description, f"{program.__name__}.{name} has no docstring"


@given(
    st.floats(min_value=1e-12, max_value=1e3, allow_nan=False),
    st.integers(min_value=1, max_value=10**12),
    st.booleans(),
)
def test_numbers_survive_hyperparameters_exactly(learning_rate, training_samples, compile_it):
    values = {"learning_rate": learning_rate, "training_samples": training_samples, "compile": compile_it}
    texts = {name: to_text(value) for name, value in values.items()}
    settings = from_texts(TrainArguments, texts, "hyperparameters")
    assert {name: getattr(settings, name) for name in values} == values


@given(st.lists(st.from_regex(r"[a-z0-9.]{1,12}(:[0-9]{1,5})?", fullmatch=True), max_size=5))
def test_lists_survive_the_command_line(hosts):
    settings = DownloadArguments(url_table="a", shards_uri="b", allowed_hosts=tuple(hosts))
    assert parse(DownloadArguments, to_flags(settings.model_dump()), "download").allowed_hosts == tuple(hosts)


def test_environment_round_trips():
    settings = ServeArguments(queue_size=7, sampler="ddim")
    environment = {**to_environment(settings.model_dump(), "SERVE_"), "PATH": "/bin"}
    assert from_environment(ServeArguments, environment, "SERVE_") == settings


def test_unknown_hyperparameter_names_the_nearest():
    with pytest.raises(ArgumentError, match=r"unknown setting 'learning_rat'; did you mean 'learning_rate'\?"):
        from_texts(TrainArguments, {"learning_rat": "1"}, "hyperparameters")


def test_bad_value_names_the_field_and_the_value():
    with pytest.raises(ArgumentError, match=r"global_batch_size: .*greater than or equal to 1.*'0'"):
        from_texts(TrainArguments, {"global_batch_size": "0"}, "hyperparameters")


def test_unknown_flag_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(TrainArguments, ["--learning-rat", "1"], "train")
    assert ended.value.code == 2
    assert "--learning-rat" in capsys.readouterr().err


def test_abbreviated_flag_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(TrainArguments, ["--learning-rat", "1e-4"], "train")
    assert "unrecognized" in capsys.readouterr().err


def test_pipeline_variables_pass_through_flags():
    variable = object()
    assert to_flags({"url_table": variable, "max_rows": 0, "none": None}) == [
        "--url-table",
        variable,
        "--max-rows",
        "0",
    ]
