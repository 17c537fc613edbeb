"""Any caption file says what is drawn, and may state the seeds."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.errors import StepError
from steps.evaluation.captions import Captions, read_captions

HELDOUT = ["a red dot", "a  blue\tbar", "a red dot"]
TEXTS = ["a blue bar", "a dog, and a cat", "ein Bär"]
ROWS = [{"id": number, "caption": text, "seed": 7 + number} for number, text in enumerate(TEXTS)]


def written(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    quoted = "\r\n".join(["id,caption,seed", *(f'{r["id"]},"{r["caption"]}",{r["seed"]}' for r in ROWS)])
    tabbed = "\n".join(["id\tcaption\tseed", *(f"{r['id']}\t{r['caption']}\t{r['seed']}" for r in ROWS)])
    contents = {
        ".csv": quoted,
        ".tsv": tabbed,
        ".jsonl": "\n".join(map(json.dumps, ROWS)),
        ".json": json.dumps({"images": [], "annotations": ROWS}),
    }
    path.write_text(contents[path.suffix], encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_tables_state_captions_and_seeds(tmp_path: Path, suffix: str) -> None:
    captions = read_captions(str(written(tmp_path / f"captions{suffix}")), HELDOUT)
    assert (captions.texts, captions.seeds) == (TEXTS, [7, 8, 9])


def test_a_line_of_text_is_a_caption_and_finds_its_real_picture(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a blue  bar\n\na red dot\nnew\n", encoding="utf-8-sig")
    captions = read_captions(f"file://{tmp_path}/captions.txt", HELDOUT)
    assert (captions.texts, captions.seeds) == (["a blue bar", "a red dot", "new"], None)
    assert captions.real_rows == [1, 0, None]


def test_heldout_captions_are_those_of_the_reference() -> None:
    captions = read_captions("heldout", HELDOUT)
    assert captions == Captions(HELDOUT, range(3), is_heldout=True)


def test_the_digest_follows_texts_and_seeds() -> None:
    digests = {Captions(texts, [None], seeds).digest for texts in (["a"], ["b"]) for seeds in (None, [1], [2])}
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("captions.pkl", b"", r"must end in one of \.txt"),
        ("captions.txt", b"\xff\xfe\xfa", "cannot be read"),
        ("captions.csv", b"text,seed\na,1\n", "has no 'caption' in some row"),
        ("captions.csv", b"caption,seed\na,x\n", "cannot be read: invalid literal"),
        ("captions.csv", b"caption,seed\na,-1\n", r"seed -1 is not in 0\.\.4294967295"),
        ("captions.csv", b"caption,seed\n ,1\n", "caption 0 is empty"),
        ("captions.jsonl", b'{"caption": "a"}\n{', "cannot be read"),
        ("captions.json", b'{"images": []}', "has no 'annotations'"),
        ("captions.json", b"[" * 100_000, "cannot be read: maximum recursion"),
        ("captions.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_fault(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StepError, match=f"captions: .*{name}.*{reason}"):
        read_captions(str(tmp_path / name), HELDOUT)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"captions: .*none\.csv cannot be read"):
        read_captions(str(tmp_path / "none.csv"), HELDOUT)
