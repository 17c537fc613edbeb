"""A mistake at the command line is one line that names the option and the fix: never a traceback."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from typer.testing import CliRunner

from params.files import write_text
from pipeline_definition import cli
from pipeline_definition.cli import app
from pipeline_definition.commands.mistakes import FIXES, INTERRUPTED, told
from pipeline_definition.errors import OperatorError
from pipeline_definition.local.state_lock import StateLock

PLAN = ("plan", "--deadline", "7d", "--budget", "5000000", "--params", "sd2_base")


def mistake(*words: str, status: int = 2) -> str:
    """Return the one line that a command ends with."""
    result = CliRunner().invoke(app, words)
    assert result.exit_code == status, result.output
    line = result.stderr.strip()
    assert line.startswith("error: ") and "\n" not in line
    return line.removeprefix("error: ")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "F"
    path.write_text("a file", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("content", "byte"),
    [(b"\xff\xfe\x00", "byte 0 is 0xff"), ("company: café".encode("latin-1"), "byte 12 is 0xe9")],
)
@pytest.mark.parametrize(
    "command",
    [
        ("business-case", "--inputs"),
        ("definition", "--params"),
        ("prompt-study", "--prompts"),
        ("compare", "--prompts"),
        ("cost", "prices", "refresh", "--file"),
    ],
    ids=lambda command: command[-2],
)
def test_a_file_that_is_not_utf_8_is_named_with_its_option(
    command: tuple[str, ...], content: bytes, byte: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    assert mistake(*command, str(path)).startswith(f"{command[-1]} {path}: not UTF-8 text: {byte}")


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\xef\xbb\xbfpipeline_name: own\n")
    result = CliRunner().invoke(app, ["definition", "--params", str(path)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("text", "got"), [("3", "3"), ("[1]", r"\[1\]"), ("", "None")])
def test_inputs_that_are_no_mapping_are_told_without_an_empty_name(text: str, got: str, tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(text, encoding="utf-8")
    line = mistake("business-case", "--inputs", str(path))
    assert line == f"--inputs {path}: write a mapping of keys, `key: value` (got {got.replace(chr(92), '')})"


def test_a_section_that_is_no_mapping_is_told_in_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("train: 3", encoding="utf-8")
    assert mistake("definition", "--params", str(path)).endswith("train: write a mapping of keys, `key: value` (got 3)")


def test_a_file_where_a_folder_is_meant(file: str) -> None:
    in_the_way = f"{file}: a file is in the way of a folder; name another folder"
    assert mistake("business-case", "--out", file) == f"--out {in_the_way}"
    assert mistake("local", "up", "--state", file) == f"--state {in_the_way}"
    assert mistake("run-local", "--state", file) == f"--state {in_the_way}"
    assert mistake("business-case", "--out", f"{file}/below").startswith(f"--out {file}/below: a file is in the way")


def test_a_folder_of_runs_that_is_a_file_is_told_before_anything_starts(file: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert mistake("run-local", "--state", str(state), "--runs", file).startswith(f"--runs {file}: a file is in the")
    assert not (state / "control_plane.log").exists()


def test_a_second_run_in_a_folder_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with closing(StateLock(state / "run", "run-local")):
        line = mistake("run-local", "--state", str(state), "--runs", str(tmp_path / "runs"))
    assert line == f"{state}/run is in use by the run-local with pid {os.getpid()}: stop that one, or choose another"
    assert not (state / "control_plane.log").exists()


def test_a_folder_where_a_file_is_meant(tmp_path: Path) -> None:
    assert mistake(*PLAN, "--out", str(tmp_path)) == f"--out {tmp_path}: is a folder; name a file"
    assert [*tmp_path.parent.glob(".*partial")] == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc, where nobody can write")
def test_a_place_where_nothing_can_be_made() -> None:
    cannot = "does not exist and cannot be made; name another place"
    assert mistake("business-case", "--out", "/proc/x") == f"--out /proc/x: {cannot}"
    assert mistake(*PLAN, "--out", "/proc/x.html") == f"--out /proc/x.html: {cannot}"
    assert mistake("run-local", "--state", "/proc/x") == f"--state /proc/x: {cannot}"
    assert mistake("prompt-study", "--prompts", "/proc/x").startswith("--prompts /proc/x: cannot be read")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENAMETOOLONG])
@pytest.mark.parametrize("name", ["own", "own/deep/file", ".own.1.2.partial"])
def test_what_the_system_refuses_names_the_option_that_led_there(number: int, name: str, tmp_path: Path) -> None:
    error = OSError(number, os.strerror(number), str(tmp_path / name))
    line, status = told(error, {"--runs": tmp_path / "runs", "--out": tmp_path / "own", "--seed": 3})
    assert (line, status) == (f"--out {tmp_path / 'own'}: {FIXES.get(number, os.strerror(number))}", 2)


def test_the_innermost_of_two_options_is_named(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "no", str(tmp_path / "state" / "runs" / "a"))
    line, _status = told(error, {"--state": tmp_path / "state", "--runs": tmp_path / "state" / "runs"})
    assert line.startswith("--runs ")


def test_an_error_of_no_option_is_one_line_all_the_same() -> None:
    assert told(OSError(errno.ENOSPC, "full"), {}) == (FIXES[errno.ENOSPC], 1)
    assert told(TimeoutError("timed out"), {"--out": Path("own")}) == ("timed out", 1)
    assert told(OperatorError("no such run"), {"--out": Path("own")}) == ("no such run", 1)


def test_a_full_disk_is_told_with_the_file_that_did_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "case"
    assert mistake("business-case", "--out", str(out)) == f"--out {out}: {FIXES[errno.ENOSPC]}"
    with pytest.raises(OSError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "text")


def test_missing_credentials_say_how_to_sign_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    line = mistake("list", status=1)
    assert line.startswith(f"{NoCredentialsError()}; `aws configure`") and "--local needs no account" in line
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "The config profile (nobody) could not be found; `aws configure`" in mistake("list", status=1)


def test_credentials_that_have_expired_say_how_to_sign_in() -> None:
    error = ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "ListPipelines")
    assert "`aws sso login` signs in" in told(error, {})[0]


def test_a_region_that_does_not_exist_names_near_ones() -> None:
    def line(region: str) -> str:
        return told(EndpointConnectionError(endpoint_url=f"https://sagemaker.{region}.amazonaws.com/"), {})[0]

    assert "no such region: did you mean us-west-1" in line("us-wets-1")
    assert line("us-east-1").endswith("check the network, a proxy or a VPN")
    assert told(EndpointConnectionError(endpoint_url="nonsense"), {})[1] == 1


def test_a_port_in_use_is_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = mistake("playground", "--port", port, "--endpoint", "http://127.0.0.1:9")
    assert line.startswith(f"--host 127.0.0.1 --port {port}: Address already in use") and "--port 0" in line
    assert mistake("playground", "--host", "256.0.0.1").startswith("--host 256.0.0.1 --port 0: ")


def test_a_folder_that_is_no_runs_is_told_without_asking_aws(tmp_path: Path) -> None:
    assert mistake("report", str(tmp_path)).startswith(f"RUN {tmp_path}: no run's folder is there")


def test_data_that_are_in_s3_already_are_not_uploaded() -> None:
    assert "--set UrlTable=, names it" in mistake("data", "upload", "s3://bucket/mine")


def test_a_budget_and_a_deadline_are_finite() -> None:
    for budget in ("inf", "nan", "0"):
        assert mistake(*PLAN[:4], budget).startswith(f"--budget {budget}: write it as 40000, $5,000,000")
    assert mistake("plan", "--deadline", f"{'9' * 400}d", "--budget", "1").startswith("--deadline 999")


def test_ctrl_c_in_a_command_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline_definition.cost.business_inputs.load_case", interrupted)
    assert mistake("business-case", "--out", str(tmp_path), status=INTERRUPTED) == "interrupted"


def test_ctrl_c_while_the_command_line_is_being_imported_is_one_line() -> None:
    # A job in the background starts with SIGINT ignored.
    slow = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    slow += "import sys, time; sys.modules['pipeline_definition.cli'] = None; print('up', flush=True)\n"
    slow += "import pipeline_definition.__main__ as m, builtins; real = builtins.__import__\n"
    slow += "builtins.__import__ = lambda name, *a, **k: time.sleep(60) if 'cli' in name else real(name, *a, **k)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", slow + "m.main()"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    threading.Timer(0.5, process.send_signal, (signal.SIGINT,)).start()
    _out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (INTERRUPTED, "error: interrupted\n")


def test_the_reader_of_a_pipe_may_leave() -> None:
    command = [sys.executable, "-m", "pipeline_definition", "parameters", "--params", "local", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert "error" not in process.stderr.read()


def test_every_command_ends_with_one_line() -> None:
    groups = [cli.app]
    while groups:
        group = groups.pop()
        assert all(command.cls is cli.OneCommand for command in group.registered_commands)
        groups += [inner.typer_instance for inner in group.registered_groups if inner.typer_instance]
