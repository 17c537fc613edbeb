"""/opt/ml is the job's own folder to a program that runs as a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_definition.local import base_dir
from pipeline_definition.local.base_dir import in_base_dir


@pytest.mark.skipif(not base_dir.possible(), reason="this system lets nobody make mount namespaces")
def test_a_program_reads_and_writes_its_folder_at_opt_ml(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("in")
    there_before = Path("/opt/ml/given").exists()
    program = "print(open('/opt/ml/given').read()); open('/opt/ml/made', 'w').write('out')"
    done = subprocess.run(in_base_dir([sys.executable, "-c", program], tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert (tmp_path / "made").read_text() == "out" and Path("/opt/ml/given").exists() == there_before


@pytest.mark.skipif(not base_dir.possible(), reason="this system lets nobody make mount namespaces")
def test_a_program_keeps_its_process_its_folder_and_its_exit_status(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getpid(), os.getcwd()); sys.exit(7)"
    argv = in_base_dir([sys.executable, "-c", program], tmp_path)
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0].split() == [str(process.pid), str(tmp_path)]
    assert process.returncode == 7


def test_where_nothing_can_be_mounted_the_words_of_the_command_are_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_dir, "possible", lambda: False)
    argv = in_base_dir(["python3", "/opt/ml/processing/input/code/x.py", "--out=/opt/ml/model", "/opt/mlx"], tmp_path)
    assert argv == ("python3", f"{tmp_path}/processing/input/code/x.py", f"--out={tmp_path}/model", "/opt/mlx")
