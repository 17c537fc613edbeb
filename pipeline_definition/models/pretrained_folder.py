"""A pretrained folder, assembled part by part from named sources, with digests and licences recorded.

Reads the Hugging Face Hub (or HF_ENDPOINT) and folders; writes OUT/PART/... and OUT/sources.json. Only configurations
and safetensors are taken: no pickle, no code. A part that sources.json vouches for is not fetched again, and a file
that was cut off goes on where it was.

    sd-pipeline pretrained fetch --out stable-diffusion
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from params.families import INDEX_FILE, UNET
from params.files import file_digest, whole_file, write_json
from params.layout import SOURCES_FILE, UNKNOWN
from params.tables import table_beside
from pipeline_definition.errors import OperatorError

_KNOWN: Final = table_beside(__file__, "pretrained_sources")
NEEDED: Final[Mapping[str, list[str]]] = {part: of["needed"] for part, of in _KNOWN["parts"].items()}
WEIGHTS: Final = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_SOURCE: Final = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(/(?P<folder>[\w./-]+?))?(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Source:
    text: str
    """OWNER/REPOSITORY[/FOLDER][@REVISION], or a folder of this machine."""
    licence: str = UNKNOWN


def named_sources(name: str) -> dict[str, Source]:
    """Return the sources of a name, by part. Raises OperatorError."""
    known = _KNOWN["sources"]
    if name not in known:
        raise OperatorError(f"--from {name}: it is one of {', '.join(known)}")
    return {part: Source(of["source"], of["licence"]) for part, of in known[name].items()}


def fetch(out: Path, sources: Mapping[str, Source], unet_weights: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Assemble a folder; return what sources.json says. Raises OperatorError at the first part that cannot be had."""
    path = out / SOURCES_FILE
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for part, source in sources.items():
        if part not in NEEDED:
            raise OperatorError(f"--part {part}: it is one of {', '.join(NEEDED)}")
        weights = WEIGHTS[:1] if part == UNET.denoiser and unet_weights else ()
        wanted = {*NEEDED[part], *_KNOWN["parts"][part].get("allowed", ()), *weights}
        asked, known = {"source": source.text, "wanted": sorted(wanted)}, record.get(part, {})
        files = {out / part / name: digest for name, digest in known.get("files", {}).items()}
        is_asked = bool(files) and asked.items() <= known.items()
        if is_asked and all(path.is_file() and file_digest(path) == digest for path, digest in files.items()):
            say(f"{part}: there already, {known['licence']}")
            continue
        is_here = source.text.startswith((".", "/")) or Path(source.text).is_dir()
        record[part] = asked | (_from_folder if is_here else _from_hub)(out / part, part, source, wanted)
        write_json(path, record)
        say(f"{part}: {source.text}, licence {record[part]['licence']}")
    write_json(out / INDEX_FILE, UNET.index("DDPMScheduler"))
    return record


def _from_folder(target: Path, part: str, source: Source, wanted: set[str]) -> dict[str, Any]:
    folder = Path(source.text)
    names = sorted(name for name in wanted if (folder / name).is_file())
    _require(part, source, set(names), wanted)
    for name in names:
        with whole_file(target / name) as partial:
            shutil.copyfile(folder / name, partial)
    return {"revision": "", "licence": source.licence, "files": {name: file_digest(target / name) for name in names}}


def _from_hub(target: Path, part: str, source: Source, wanted: set[str]) -> dict[str, Any]:
    """Take a part from the Hub, at the commit that its revision means now, and compare it with the Hub's digests."""
    from huggingface_hub import HfApi, errors, hf_hub_download

    place = _SOURCE.fullmatch(source.text)
    if place is None:
        fix = "write it as OWNER/REPOSITORY[/FOLDER][@REVISION], or name a folder"
        raise OperatorError(f"--part {part}={source.text}: {fix}")
    repository, prefix = place["repository"], f"{place['folder']}/" if place["folder"] else ""
    # Among the bases is the error of the HTTP client that the library uses, whichever it is.
    failures = cast(tuple[type[Exception], ...], (ValueError, *errors.HfHubHTTPError.__bases__))
    staging = target.parent / f".{target.name}.partial"
    try:
        info = HfApi().model_info(repository, revision=place["revision"], files_metadata=True)
        siblings = [item for item in info.siblings or () if item.rfilename.startswith(prefix)]
        there = {item.rfilename.removeprefix(prefix): item for item in siblings}
        names = sorted(wanted & there.keys())
        _require(part, source, set(names), wanted)
        for name in names:
            got = Path(hf_hub_download(repository, prefix + name, revision=info.sha, local_dir=staging))
            lfs = there[name].lfs
            if lfs and lfs.sha256 != file_digest(got):
                got.unlink()
                raise OperatorError(f"{part}: {source.text}: {name} is not what the Hub says that it is; try again")
    except failures as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise OperatorError(f"{part}: {source.text}: {reason}; --part {part}=OTHER names another source") from None
    for name in names:
        with whole_file(target / name) as partial:
            partial.hardlink_to(staging / prefix / name)
    shutil.rmtree(staging)
    licence = str(getattr(info.card_data, "license", None) or source.licence)
    return {"revision": info.sha, "licence": licence, "files": {name: file_digest(target / name) for name in names}}


def _require(part: str, source: Source, there: set[str], wanted: set[str]) -> None:
    if missing := sorted({*NEEDED[part], *(wanted & set(WEIGHTS))} - there):
        raise OperatorError(f"{part}: {source.text} has no {' and no '.join(missing)}; only safetensors are taken")
