"""The settings of the endpoint."""

from typing import Literal

from pydantic import Field

from params.model import Model, added


class ServeArguments(Model):
    """`python -m steps serve`: the endpoint. Its settings arrive as environment variables named SERVE_<FIELD>."""

    guidance_scale: float = Field(7.5, ge=0, le=30)
    """Used when a request names none (diffusers' default)."""
    inference_steps: int = Field(25, ge=1, le=150)
    """Used when a request names none (25 with DPM-Solver++ match 50 with DDIM: Lu et al. 2022, arXiv:2211.01095)."""
    sampler: Literal["ddim", "dpm++", "euler"] = "dpm++"
    """Used when a request names none."""
    default_size_px: int = Field(512, ge=8, multiple_of=8)
    """Width and height when a request names none."""
    max_size_px: int = Field(1024, ge=8, multiple_of=8)
    """Largest width or height that a request may ask for."""
    max_images: int = Field(4, ge=1)
    """Most pictures for one request."""
    max_inference_steps: int = Field(100, ge=1, le=500)
    """Most denoising steps for one request (diffusers' samplers break down near the 1,000 steps of training)."""
    max_batch_size: int = Field(8, ge=1)
    """Most pictures denoised together: requests that share a shape are batched."""
    batch_wait_ms: float = Field(5.0, ge=0)
    """How long the first request waits for others to share its batch."""
    queue_size: int = Field(32, ge=1)
    """Requests waiting beyond this are answered with 429 and Retry-After."""
    shed_load: bool = added(True)
    """Answer 429 where the queue is full or the time would not suffice; false behind a queue that keeps what waits, as
    that of an asynchronous endpoint: then every request has its turn."""
    timeout_s: float = Field(55.0, gt=0, le=3600)
    """A request that takes longer is answered with 504: SageMaker itself gives up at 60 s, asynchronously at 3,600."""
    precision: Literal["float32", "bfloat16", "float16"] = "float16"
    """In which the model generates."""
    channels_last: bool = False
    """Convolutions in channels-last memory format (PyTorch's advice for half precision on tensor cores)."""
    compile: bool = False
    """torch.compile the network for pictures of the default size: minutes of warm-up, then faster steps."""
    exact_batches: bool = False
    """Batch only where pictures then equal, bit for bit, those denoised alone. It is measured at start: so on CPUs
    without `compile`; where a GPU's kernels depend on the batch, pictures are denoised one by one."""
    threads: int = Field(0, ge=0)
    """CPU threads of one operation; 0: PyTorch's own choice."""
    adapter: str = added("", max_length=64)
    """Adapter of requests that name none; empty: the model's own weights."""
    adapters_uri: str = added("", pattern=r"^(s3://.+)?$")
    """s3:// prefix of more adapters, NAME.safetensors or NAME/pytorch_lora_weights.safetensors, in diffusers' format or
    kohya's; they are loaded at start, beside those of the model's own archive. Empty: none."""
    safety_checker: bool = True
    """Use the model folder's safety checker, where it has one: what it flags comes out black and is named."""
    safety_checker_uri: str = added("", pattern=r"^(s3://.+)?$")
    """s3:// prefix with safety_checker/ and feature_extractor/, for a model folder without them. Empty: none."""
    require_safety_checker: bool = added(False)
    """Do not start without a safety checker."""
    refused_prompts: str = added("", max_length=1024)
    """File or s3:// object of regular expressions, one a line: a prompt in which one is found gets 422. Empty: none."""
    without_encoders: tuple[Literal["text_encoder", "text_encoder_2", "text_encoder_3"], ...] = added(())
    """Text encoders that are not loaded, of a model that has several and was trained with train.encoder_dropout:
    without Stable Diffusion 3's T5 (text_encoder_3) a host needs 9 GB less."""
    model_name: str = Field("", max_length=256)
    """Written into every picture, such as the ARN of the model package; empty: the digest of the model folder."""
    max_prompt_characters: int = Field(2000, ge=1)
    """Longest prompt (CLIP reads its first 77 tokens; a picture says when its prompt was cut)."""
    max_body_bytes: int = Field(65_536, ge=1024)
    """Larger request bodies are answered with 413."""
    body_timeout_s: float = Field(10.0, gt=0)
    """A client that sends its request more slowly is answered with 408."""
    drain_timeout_s: float = Field(25.0, ge=0)
    """How long running requests may finish after SIGTERM: SageMaker kills 30 s after it."""
    host: str = "0.0.0.0"
    """Address to listen on; the port is SAGEMAKER_BIND_TO_PORT (8080)."""
    provenance: bool = added(True)
    """Sign a C2PA manifest into every picture: model, seed, settings, and digests of the prompts. Switch it off only
    where nobody outside sees the pictures (the EU AI Act, Article 50(2), asks for marks that machines read)."""
    watermark: bool = added(True)
    """Mark every picture of 64 pixels and more invisibly as generated: it is known without its file's metadata, too."""
    signing_key: str = added("", max_length=2048)
    """Of the manifests: a PEM file, an s3:// object, or the ARN or alias/ of an asymmetric key of AWS KMS. Empty: one
    that is made at start, whose certificate nobody trusts."""
    signing_certificates: str = added("", max_length=2048)
    """PEM file or s3:// object: the key's certificate, for digital signatures, and those that it depends on."""
    log_prompts: bool = False
    """Write prompts into the log."""


class InspectArguments(Model):
    """`python -m steps inspect`: what a picture's manifest and its watermark say."""

    file: str
    """PNG, JPEG or WebP."""
