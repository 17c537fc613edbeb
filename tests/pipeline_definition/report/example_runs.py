"""Artifacts folders as `collect` leaves them, built in code: a run that passed, and what others leave."""

import copy
import io
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tests.pipeline_definition.definitions import definition_of

START = datetime(2026, 11, 24, 2, 17, 5, tzinfo=UTC)
ARN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/sd-pipeline-local/execution/q3v8x0k2m5ta"
KINDS = {"Download": "ProcessingJob", "Encode": "ProcessingJob", "Tune": "TuningJob", "Train": "TrainingJob"}
SECONDS = {
    "Download": 21.4,
    "Encode": 38.2,
    "Tune": 47.9,
    "Train": 192.6,
    "Evaluate": 61.3,
    "QualityGate": 0.2,
    "Register": 0.4,
    "CreateModel": 0.3,
    "EndpointConfig": 0.2,
    "Endpoint": 9.1,
}
CAPTIONS = [
    "a small red circle at the top on a blue background",
    "a large yellow star in the centre on a black background",
    "a small green triangle on the left on a pink background",
    "a large white heart at the bottom on a cyan background",
    "a small cyan ring on the right on a red background",
    "a large pink cross at the top on a green background",
]


def full_run(folder: Path) -> Path:
    """A run that passed the gate on this machine."""
    write_definition(folder)
    write_json(folder / "execution.json", execution("Succeeded", SECONDS))
    write_json(folder / "shards_manifest.json", SHARDS_MANIFEST)
    write_json(folder / "latents_manifest.json", LATENTS_MANIFEST)
    write_json(folder / "tuning.json", TUNING)
    write_training(folder)
    write_evaluation(folder, METRICS)
    write_json(folder / "model_package.json", MODEL_PACKAGE)
    return folder


def missed_run(folder: Path) -> Path:
    """A run whose model missed the gate: the other branch, nothing registered."""
    full_run(folder)
    (folder / "model_package.json").unlink()
    write_definition(folder, {"MaxFid": 5.0})
    reason = "Quality gate missed: FID is 9.112 and must be at most MaxFid = 5.0 ; CLIP score is 0.811"
    begun = {name: SECONDS[name] for name in list(SECONDS)[:6]} | {"GateFailed": 0.1}
    write_json(folder / "execution.json", execution("Failed", begun, failed=("GateFailed", reason)))
    return folder


def broken_run(folder: Path, reason: str = "rank 1 ended with status 1: CUDA out of memory") -> Path:
    """A run that ended inside Train: no metrics, no pictures, no package."""
    write_definition(folder)
    begun = {name: SECONDS[name] for name in ("Download", "Encode", "Tune", "Train")}
    content = execution("Failed", begun, failed=("Train", reason))
    content["steps"][0]["cached"] = True
    content["steps"][3]["log_tail"] = [f"seen_samples={64 * i} training_loss=0.9" for i in range(3)] + [
        f"error: {reason}"
    ]
    content["left_out"] = {"training_log.jsonl": "no training_log.jsonl in the archives under s3://bucket/model"}
    write_json(folder / "execution.json", content)
    write_json(folder / "shards_manifest.json", SHARDS_MANIFEST)
    write_json(folder / "latents_manifest.json", LATENTS_MANIFEST)
    write_json(folder / "tuning.json", TUNING)
    return folder


def aws_run(folder: Path) -> Path:
    """The same run on AWS: hosts are billed by the second."""
    full_run(folder)
    content = json.loads((folder / "execution.json").read_text())
    content["is_local"] = False
    for step in content["steps"]:
        if step["job"]:
            step["job"]["billable_seconds"] = 3600
            step["job"]["hosts"] = [{"instance_type": "ml.p4d.24xlarge", "instance_count": 2}]
    write_json(folder / "execution.json", content)
    return folder


def billed_run(folder: Path) -> Path:
    """The same with its forecast, beside which the bill is read."""
    aws_run(folder)
    write_json(folder / "forecast.json", FORECAST)
    return folder


def third_run(folder: Path) -> Path:
    """A third version beside an approved one and one whose metrics are gone, with copies looked for."""
    billed_run(folder)
    write_json(folder / "model_package.json", {**MODEL_PACKAGE, "version": 4})
    own = {key: METRICS["metrics"][key] for key in ("fid", "clip_score", "kid")}
    cmmd = {"value": 0.31, "low": 0.29, "high": 0.33, "pictures": 256}
    first = {"fid": {**own["fid"], "value": 14.2, "low": 12.9, "high": 15.6}, "clip_score": own["clip_score"]}
    write_json(
        folder / "versions.json",
        {
            "versions": [
                {"version": 1, "status": "Approved", "metrics": {**first, "cmmd": {**cmmd, "value": 0.42}}},
                {"version": 2, "status": "Rejected", "metrics": {"fid": {**own["fid"], "pictures": 64, "value": 40.1}}},
                {
                    "version": 3,
                    "status": "Rejected",
                    "metrics": {},
                    "problem": "s3://bucket/3/metrics.json: gone",
                },
            ]
        },
    )
    metrics = changed(METRICS, metrics={**METRICS["metrics"], "cmmd": cmmd, "copies": {"value": 0.0, "high": 0.004}})
    write_json(folder / "metrics.json", metrics)
    (folder / "copies.html").write_text(COPIES, encoding="utf-8")
    return folder


COPIES = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Copies of training pictures</title>
<style>body { font: 16px sans-serif; }</style><h1>Copies of training pictures</h1>
<p id="caption">a "quoted" &lt;b&gt;caption&lt;/b&gt;<script>document.title = "scripts run"</script>
<img src="https://example.com/tracked.png" alt="">
"""


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_definition(folder: Path, changes: dict[str, Any] | None = None) -> None:
    definition = definition_of("local")
    defaults = {item["Name"]: item["DefaultValue"] for item in definition["Parameters"]}
    values = {**defaults, "FsxId": "fs-5c1b7f0d2e9a44310", **(changes or {})}
    write_json(folder / "definition.json", definition)
    write_json(folder / "parameters.json", {"values": values, "defaults": defaults})


def execution(status: str, begun: dict[str, float], failed: tuple[str, str] = ("", "")) -> dict[str, Any]:
    at, steps = START, []
    for name, seconds in begun.items():
        steps.append(_step(name, at, seconds, failed[1] if name == failed[0] else ""))
        at += timedelta(seconds=seconds + 0.4)
    return {
        "arn": ARN,
        "id": ARN.rsplit("/", 1)[-1],
        "status": status,
        "failure_reason": failed[1],
        "region": "us-east-1",
        "is_local": True,
        "start": START.isoformat(),
        "end": steps[-1]["end"],
        "steps": steps,
        "left_out": {},
    }


def _step(name: str, start: datetime, seconds: float, reason: str) -> dict[str, Any]:
    return {
        "name": name,
        "status": "Failed" if reason else "Succeeded",
        "start": start.isoformat(),
        "end": (start + timedelta(seconds=seconds)).isoformat(),
        "seconds": seconds,
        "cached": False,
        "attempts": 2 if name == "Encode" else 1,
        "failure_reason": reason,
        "metadata": {"Condition": {"Outcome": "True"}} if name == "QualityGate" else {},
        "job": _job(name, seconds),
        "log_tail": [],
    }


def _job(name: str, seconds: float) -> dict[str, Any] | None:
    kind = KINDS.get(name, "ProcessingJob" if name == "Evaluate" else None)
    if kind is None:
        return None
    count = 2 if name == "Train" else 1
    return {
        "kind": kind,
        "name": f"{name.lower()}-job",
        "status": "Completed",
        "seconds": seconds,
        "billable_seconds": None,
        "hosts": [{"instance_type": "ml.c5.large", "instance_count": count}],
        "outputs": {},
        "final_metrics": {},
    }


def write_training(folder: Path) -> None:
    lines = []
    for step in range(10, 801, 10):
        seen = 64 * step
        entry = {
            "seen_samples": seen,
            "training_loss": round(0.32 + 0.72 * math.exp(-step / 130) + 0.03 * math.sin(step * 1.7), 6),
            "learning_rate": round(1.1e-3 * min(1, seen / 640) * (0.5 + 0.5 * math.cos(math.pi * seen / 51200)), 9),
            "iterations_per_s": round(4.2 + 0.16 * math.sin(step * 0.9), 4),
            "images_per_s": round(64 * (4.2 + 0.16 * math.sin(step * 0.9)), 2),
            "images_per_s_per_gpu": 134.0,
            "gradient_norm": 0.4,
            "skipped_steps": 0,
            "data_s": 0.04,
            "compute_s": 2.01,
            "communication_s": 0.33,
            "remaining_s": 0.2 * (800 - step),
        }
        lines.append(json.dumps(entry))
        if step % 200 == 0:
            loss = round(0.335 + 0.5 * math.exp(-step / 160), 6)
            lines.append(json.dumps({"validation_loss": loss, "seen_samples": seen}))
    (folder / "training_log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "lineage.json", LINEAGE)


def write_evaluation(folder: Path, metrics: dict[str, Any]) -> None:
    write_json(folder / "metrics.json", metrics)
    entries = [
        {"index": i, "caption": caption, "seed": i, "file": f"samples/{i:06d}.png", "clip_score": 0.8}
        for i, caption in enumerate(CAPTIONS)
    ]
    write_json(folder / "samples.json", {"samples": entries})
    (folder / "samples").mkdir(exist_ok=True)
    for i, caption in enumerate(CAPTIONS):
        (folder / "samples" / f"{i:06d}.png").write_bytes(picture(caption))
    (folder / "contact_sheet.png").write_bytes(picture(CAPTIONS[0], (1590, 420)))


def picture(caption: str, size: tuple[int, int] = (64, 64)) -> bytes:
    """A PNG: a disc in the caption's colours."""
    words = caption.split()
    image = Image.new("RGB", size, words[-2])
    width, height = size
    ImageDraw.Draw(image).ellipse((width / 4, height / 4, 3 * width / 4, 3 * height / 4), fill=words[2])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


SHARDS_MANIFEST: dict[str, Any] = {
    "format_version": 1,
    "plan_digest": "9f2c" * 16,
    "table_digest": "77ab" * 16,
    "image_size_px": 64,
    "resize_mode": "center_crop",
    "ledger": {
        "rows": 4000,
        "tried": 3980,
        "kept": 3871,
        "failed": {"http_404": 48, "timeout": 21, "corrupt": 18},
        "filtered": {"duplicate": 20, "too_small": 22},
        "sample_yield": 0.978018,
        "bytes": 9_840_640,
    },
    "shards": [
        {"name": f"{i:05d}.tar", "rows": 1000, "samples": 968, "bytes": 2_460_160, "sha256": "ab" * 32, "failed": {}}
        for i in range(4)
    ],
}
LATENTS_MANIFEST: dict[str, Any] = {
    "format_version": 1,
    "encoder_digest": "4c1d" * 16,
    "tokenizer_digest": "8e02" * 16,
    "text_encoder_digest": "1b9a" * 16,
    "source_manifest_digest": "f00d" * 16,
    "resolution_px": 64,
    "latent_shape": [4, 8, 8],
    "scaling_factor": 0.7321,
    "caption_length": 16,
    "caption_embeddings": False,
    "embedding_width": 64,
    "precision": "float32",
    "rows_per_block": 64,
    "counts": {"train": 3486, "heldout": 385},
    "dropped_heldout_samples": 0,
    "latents_mean": 0.0132,
    "latents_std": 1.3672,
    "channel_means": [0.01, 0.02, -0.01, 0.03],
    "channel_stds": [1.3, 1.4, 1.35, 1.41],
    "decoded_psnr_db": 27.83,
    "shards": [{"name": "train-00000.tar", "split": "train", "rows": 1024, "bytes": 1_250_304, "sha256": "cd" * 32}],
}
TUNING: dict[str, Any] = {
    "name": "tune-job",
    "status": "Completed",
    "strategy": "Random",
    "objective": {"metric": "validation_loss", "type": "Minimize"},
    "best_trial": "tune-job-002",
    "trials": [
        {
            "name": f"tune-job-{i:03d}",
            "status": "Completed",
            "hyperparameters": {"learning_rate": rate, "micro_batch_size": size, "caption_dropout": dropout},
            "objective": objective,
            "seconds": seconds,
            "billable_seconds": seconds,
            "hosts": [{"instance_type": "ml.c5.large", "instance_count": 1}],
            "final_metrics": {"validation_loss": objective, "iterations_per_s": speed, "images_per_s": 64 * speed},
        }
        for i, (rate, size, dropout, objective, seconds, speed) in enumerate(
            [
                ("0.00061", "16", "0.12", 0.8123, 24.0, 1.9),
                ("0.00134", "32", "0.071", 0.6911, 19.0, 2.6),
                ("0.00187", "16", "0.1", 0.7204, 17.5, 2.05),
            ],
            start=1,
        )
    ],
}
FORECAST: dict[str, Any] = {
    "region": "us-east-1",
    "prices_date": "2026-11-24",
    "purchase": "on_demand",
    "usd": 216.5,
    "hours": 4.6,
    "lines": [
        {"step": "Download", "what": "2 x ml.p4d.24xlarge", "hours": 0.9, "usd": 43.2, "rate_kind": "measured"},
        {"step": "Encode", "what": "2 x ml.p4d.24xlarge", "hours": 1.1, "usd": 52.8, "rate_kind": "derived"},
        {"step": "Tune", "what": "3 trials", "hours": 0.1, "usd": 0.01, "rate_kind": "derived"},
        {"step": "Train", "what": "2 x ml.p4d.24xlarge", "hours": 1.5, "usd": 72.0, "rate_kind": "published"},
        {"step": "Evaluate", "what": "2 x ml.p4d.24xlarge", "hours": 1.0, "usd": 48.0, "rate_kind": "derived"},
        {"step": "S3 storage", "what": "21 GB, 1 months", "hours": 0.0, "usd": 0.49, "rate_kind": "assumed"},
    ],
    "usd_per_instance_hour": {"ml.p4d.24xlarge": 24.01, "ml.c5.large": 0.102},
}
METRICS: dict[str, Any] = {
    "metrics": {
        "fid": {"value": 9.1124, "low": 8.21, "high": 10.3, "confidence": 0.95, "features": "clip", "pictures": 256},
        "fid_untrained": {"value": 55.53, "low": 53.1, "high": 57.9, "confidence": 0.95, "pictures": 256},
        "fid_real": {"value": 1.204, "low": 0.9, "high": 1.6, "confidence": 0.95, "pictures": 192},
        "fid_above_pretrained": {"value": -4.2, "low": -6.1, "high": -2.2, "confidence": 0.95, "pictures": 128},
        "fid_above_approved": {"value": 0.0, "low": 0.0, "high": 0.0, "confidence": 0.95, "pictures": 256},
        "kid": {"value": 0.0121, "standard_deviation": 0.002, "pictures": 256},
        "clip_score": {"value": 0.8113, "low": 0.792, "high": 0.829, "confidence": 0.95, "pictures": 256},
        "clip_score_untrained": {"value": 0.0907, "low": 0.07, "high": 0.11, "confidence": 0.95, "pictures": 256},
        "clip_score_real": {"value": 0.9204, "low": 0.915, "high": 0.925, "confidence": 0.95, "pictures": 385},
    },
    "guidance_curve": [
        {
            "guidance_scale": scale,
            "pictures": 128,
            "fid": {"value": fid, "low": fid - 1.1, "high": fid + 1.2},
            "clip_score": {"value": score, "low": score - 0.02, "high": score + 0.02},
        }
        for scale, fid, score in ((1.0, 21.4, 0.55), (3.0, 10.2, 0.80), (6.0, 13.9, 0.86))
    ],
    "samples": 256,
    "requested_samples": 256,
    "notes": [],
    "guidance_scale": 3.0,
    "inference_steps": 15,
    "sampler": "dpm++",
    "size_px": 64,
    "fid_features": "clip",
    "seed": 0,
    "versions": {"torch": "2.13.0", "torchmetrics": "1.8.2"},
    "digests": {"model": "0a1b" * 16},
}
LINEAGE: dict[str, Any] = {
    "job_name": "train-job",
    "settings": {
        "global_batch_size": 64,
        "micro_batch_size": 32,
        "learning_rate": 0.00134,
        "prediction_type": "v_prediction",
    },
    "code_digest": "5eed" * 16,
    "latents_manifest_digest": "f00d" * 16,
    "text_encoder_digest": "1b9a" * 16,
    "initial_unet": None,
    "seen_samples": 51200,
    "skipped_steps": 0,
    "training_loss": 0.3307,
    "validation_loss": 0.3384,
    "world_size": 2,
    "device": "x86_64",
    "images_per_s": 269.0,
    "versions": {"torch": "2.13.0", "diffusers": "0.42.1"},
}
MODEL_PACKAGE: dict[str, Any] = {
    "arn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/sd-pipeline-local/1",
    "group": "sd-pipeline-local",
    "version": 1,
    "approval_status": "PendingManualApproval",
    "approval_description": None,
    "description": "Stable Diffusion trained by sd-pipeline-local",
    "created": (START + timedelta(seconds=370)).isoformat(),
    "metadata": {"fid": "9.112417", "clip_score": "0.811312", "dataset": "shapes", "training_samples": "51200"},
    "metrics_uri": "s3://sd-pipeline-local/evaluation/shapes/train-job/metrics.json",
    "images": ["local/sd-pipeline-inference:latest"],
    "model_data": ["s3://sd-pipeline-local/model/shapes/train-job/output/model.tar.gz"],
}


def changed(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with some keys replaced."""
    return {**copy.deepcopy(content), **changes}
