"""The settings of Evaluate and of scoring: a trained model, or pictures, to metrics."""

from typing import Annotated, Final, Literal

from pydantic import Field

from params.layout import HELDOUT_CAPTIONS, NO_MODEL
from params.model import Model, added

# How a model draws: in a parameter set, the endpoint's values where `evaluate:` names none of its own.
DRAWING: Final = ("guidance_scale", "inference_steps", "sampler", "precision")


class EvaluateArguments(Model):
    """`python -m steps evaluate`: a trained model to metrics.json and a contact sheet."""

    captions: str = HELDOUT_CAPTIONS
    """What is drawn: `heldout`, the captions of the reference, or the s3:// address or path of any caption file (.txt,
    .csv, .tsv, .jsonl, .json as COCO writes it, .parquet). A column `seed` in it states each picture's seed. [place]"""
    samples: int = Field(30_000, ge=2)
    """Pictures to generate (MLPerf and the SD2 card: 30,000). [extent]"""
    batch_size: int = Field(16, ge=1)
    """Pictures generated at once on one device. [content]"""
    guidance_scale: float = Field(8.0, ge=0)
    """Classifier-free guidance (MLPerf: 8). [content]"""
    guidance_grid: tuple[Annotated[float, Field(ge=0)], ...] = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    """Guidance scales of the FID-CLIP curve (the SD2 card's). [extent]"""
    grid_samples: int = Field(10_000, ge=0)
    """Pictures at each guidance scale of the curve, of the first prompts (the SD2 card: 10,000); 0: no
    curve. [extent]"""
    inference_steps: int = Field(50, ge=1)
    """Denoising steps (MLPerf: 50 with DDIM). [content]"""
    sampler: Literal["ddim", "dpm++", "euler"] = "ddim"
    """Which scheduler denoises. [content]"""
    seed: int = Field(0, ge=0)
    """Picture i starts from the noise of (seed, i). [content]"""
    untrained_samples: int = Field(2048, ge=0)
    """Pictures of the untrained model, as a sanity row; 0: none. [extent]"""
    comparison_samples: int = Field(10_000, ge=0)
    """Pictures of the generic pretrained model, where the pretrained folder has its UNet's weights, and of the approved
    model: each is compared with the trained one on the same prompts and seeds; 0: no comparison. [extent]"""
    pretrained_size_px: int = Field(0, ge=0, multiple_of=8)
    """Side at which the generic pretrained model draws before its pictures are reduced to the reference's: models draw
    poorly at sizes that they were not trained at (stable-diffusion-2-base: 512); 0: the reference's. [extent]"""
    require_pretrained: bool = False
    """Refuse a pretrained folder without a UNet's weights: the gate compares with that model. [running]"""
    approved_model: str = NO_MODEL
    """Address of the approved model's archive (model.tar.gz), to be compared with; `none`: there is none yet, and the
    model is compared with itself. [place]"""
    contact_sheet_samples: int = Field(48, ge=1)
    """Pictures on the contact sheet. [extent]"""
    precision: Literal["float32", "bfloat16", "float16"] = "float16"
    """In which the model generates. [content]"""
    fid_features: Literal["inception", "clip"] = "inception"
    """`inception`: Inception v3's pooled features (comparable with published FID); `clip`: the evaluator's
    CLIP's. [extent]"""
    served: tuple[str, ...] = added(())
    """How the endpoint draws, where that is not how the judged pictures are drawn: inference_steps=25. Reported beside
    the metrics. [running]"""
    metrics: tuple[Literal["fid_pytorch", "fid_clean", "fd_dinov2", "cmmd", "precision_recall", "pick_score"], ...] = (
        added(())
    )
    """Further metrics, each with a network of its own in the evaluator's folder of its name; the first two and
    precision_recall take what FID takes. [extent]"""
    descriptors_uri: str = added("")
    """Where Encode put the descriptors of the training pictures: copies of them are looked for; empty: they are not.
    [place]"""
    shards_uri: str = added("")
    """Where the training pictures are, to be shown beside their copies. [place]"""
    repeated_samples: int = added(256, ge=0)
    """With descriptors: pictures drawn in addition, of the captions that training saw most often, whose pictures are
    repeated first (Carlini et al. 2023, arXiv:2301.13188). [extent]"""
    following: Literal["none", "shapes", "detector"] = added("none")
    """Who counts the pictures that show what their prompt asks for: `shapes`, the pixels of the judged pictures, which
    are of the local set; `detector`, the OWLv2 or OWL-ViT in the evaluator's folder detector/, on prompts of its own;
    `none`: nobody. [extent]"""
    following_samples: int = added(600, ge=6)
    """With the detector: pictures drawn in addition, one for each of its prompts. [extent]"""
    detector_threshold: float = added(0.2, ge=0, le=1)
    """Least score at which the detector has found an object: each detector has scores of its own. [extent]"""
    samples_uri: str = ""
    """Prefix that outlives the job, where pictures are kept while they are generated: a killed evaluation goes on from
    it, and several hosts share the work through it. Empty: kept in the job's output alone, and one host. [place]"""


class ScoreArguments(Model):
    """`python -m steps score`: pictures and their captions to CLIP scores."""

    pictures: str
    """File with one JSON object a line: {"picture": path, "caption": text}."""
    evaluator: str
    """Folder that holds clip/, a CLIPModel as transformers saves it."""
    scores: str
    """JSON file that is written."""
