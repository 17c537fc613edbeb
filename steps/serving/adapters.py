"""The adapters that an endpoint has: those in the model's archive, and those under an S3 prefix, side by side.

Reads <model>/adapters/NAME/pytorch_lora_weights.safetensors, and <adapters_uri>/NAME.safetensors or
<adapters_uri>/NAME/pytorch_lora_weights.safetensors. Their matrices stay beside the weights: all pictures of a batch
have the same adapter (steps.serving.pictures.Shape), and switching takes no time.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from params.layout import ADAPTER_FILE
from params.programs import ServeArguments
from params.programs.train import ADAPTER_NAME
from steps.errors import StepError
from steps.model.adapters import adapter_files, load_adapter
from steps.serving.objects import download


def load_adapters(pipeline: Any, model_dir: Path, arguments: ServeArguments) -> None:
    """Load every adapter into a pipeline, all switched off; raises StepError that names one that is unusable."""
    with tempfile.TemporaryDirectory() as folder:
        files = adapter_files(model_dir)
        for name, file in _fetched(arguments.adapters_uri, Path(folder)).items():
            if name in files:
                raise StepError(f"adapters_uri: the model's archive has an adapter {name}, too; give one another name")
            files[name] = file
        for name, file in files.items():
            load_adapter(pipeline, name, file)
    if arguments.adapter and arguments.adapter not in files:
        raise StepError(f"adapter: {arguments.adapter!r} is none of this model's: {', '.join(files) or 'it has none'}")
    if files:
        pipeline.disable_lora()


def _fetched(uri: str, folder: Path) -> dict[str, Path]:
    if not uri:
        return {}
    files: dict[str, Path] = {}
    for key, file in download(uri, folder, "adapters_uri", ".safetensors").items():
        name = key.removesuffix(f"/{ADAPTER_FILE}").removesuffix(".safetensors")
        if not re.match(ADAPTER_NAME, name) or name in files:
            raise StepError(f"adapters_uri: {key}: a name has letters, digits, - and _, once each")
        files[name] = file
    if not files:
        raise StepError(f"adapters_uri: no NAME.safetensors under {uri}")
    return files
