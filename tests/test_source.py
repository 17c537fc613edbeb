"""What the source never does, so that nothing that is read can run: found in its syntax tree, not by words."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = ("params", "pipeline_definition", "steps", "shapes", "benchmarks")
SOURCES = sorted(path for room in ROOMS for path in Path(room).rglob("*.py"))
# Each runs code that stands in what it reads.
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def calls(source: str) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Yield (dotted name, keyword arguments) of every call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg}


def imported(source: str) -> Iterator[str]:
    """Yield the top package of every import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def complaints(source: str) -> Iterator[str]:
    """Say what is wrong with a source."""
    yield from (f"imports {name}" for name in imported(source) if name in UNPICKLERS)
    for name, words in calls(source):
        if name == "torch.load" and not is_true(words.get("weights_only")):
            yield "torch.load without weights_only=True"
        if is_true(words.get("allow_pickle")) or is_true(words.get("trust_remote_code")):
            yield f"{name} trusts what it reads"
        if name in ("yaml.load", "yaml.load_all") and "Loader" not in words:
            yield f"{name} without a safe loader"
        if name in ("yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system", "os.popen"):
            yield name
        if is_true(words.get("shell")):
            yield f"{name} through a shell"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_that_is_read_can_run(path: Path) -> None:
    assert list(complaints(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "subprocess.run(command, shell=True)",
        "eval(text)",
    ],
)
def test_the_search_would_find_it(bad: str) -> None:
    assert list(complaints(bad))


def classes(source: str) -> Iterator[str]:
    """Yield the name of every class."""
    yield from (node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for name in classes(path.read_text(encoding="utf-8")):
            places[name].append(str(path))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def renames(source: str) -> Iterator[str]:
    """Yield the calls that put a file in another's place: `path.replace(target)`, `os.replace(path, target)`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
            is_of_os = ast.unparse(node.func.value) == "os"
            if is_of_os or (len(node.args) == 1 and not node.keywords):
                yield ast.unparse(node)


# Objects of the local S3 are staged outside their bucket, whose listing would show a partial file.
RENAMING = {Path("params/files.py"), Path("pipeline_definition/local/stored_object.py")}


@pytest.mark.parametrize("path", sorted(set(SOURCES) - RENAMING), ids=str)
def test_whole_files_are_written_by_params_files_alone(path: Path) -> None:
    assert list(renames(path.read_text(encoding="utf-8"))) == []


def test_the_search_would_find_a_file_written_by_hand() -> None:
    assert list(renames("partial.replace(path)\nos.replace(a, b)\ntext.replace('a', 'b')")) == [
        "partial.replace(path)",
        "os.replace(a, b)",
    ]
