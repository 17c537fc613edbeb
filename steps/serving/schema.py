"""The request of POST /invocations and the JSON form of its answer."""

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AliasChoices, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from params.model import Model
from params.programs import ServeArguments
from params.tables import table_beside

PictureFormat = Literal["png", "jpeg", "webp"]
Sampler = Literal["ddim", "dpm++", "euler"]
# Seeds are 32-bit: every JSON reader holds them exactly.
MAX_SEED: Final = 2**32 - 1
TABLES: Final[dict[str, Any]] = table_beside(__file__, "aliases")
ALIASES: Final[dict[str, tuple[str, str]]] = TABLES["fields"]


class GenerationSettings(Model):
    """How pictures are drawn; an answer has the endpoint's defaults filled in."""

    steps: int
    """Denoising steps."""
    guidance_scale: float
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598); up to 1: none."""
    width: int
    """Pixels, a multiple of 8."""
    height: int
    """Pixels, a multiple of 8."""
    sampler: Sampler
    """Which scheduler denoises."""
    adapter: str
    """Draw with this adapter; empty: with the model's own weights."""
    adapter_scale: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    """How much the adapter counts; 1: as it was trained."""
    long_prompts: bool = False
    """Read prompts of any length, in parts as long as the text encoder reads, and weights: `(word:1.2)`, `[word]`."""


class GenerationRequest(GenerationSettings):
    """What to draw: `prompt` or `prompts`, and how."""

    model_config = ConfigDict(strict=True)

    prompt: str | None
    """Draw this; excludes `prompts`."""
    prompts: tuple[str, ...] | None
    """Draw each of these; excludes `prompt`."""
    negative_prompt: str
    """What guidance leads away from."""
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    """Picture i of the answer is drawn from seed + i; left out: the server chooses and says which."""
    num_images: int
    """Pictures for each prompt."""
    format: PictureFormat | None = None
    """Picture format; left out: what Accept says, otherwise PNG."""
    embed_prompt: bool = False
    """Write the prompt into the picture's metadata."""

    max_images: ClassVar[int]
    """Of all prompts together."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.prompt is None) == (self.prompts is None):
            raise _finding("prompt", "exactly one of prompt and prompts is needed")
        count, most = len(self.texts), self.max_images
        if count > most:
            field = "prompts" if self.num_images == 1 else "num_images"
            raise _finding(field, f"prompts times num_images is {count}: at most {most} pictures for one request")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompt of each picture."""
        prompts = self.prompts if self.prompts is not None else (self.prompt or "",)
        return tuple(prompt for prompt in prompts for _ in range(self.num_images))

    def seeds(self, first_seed: int) -> tuple[int, ...]:
        """Return the seed of each picture; they begin again at 0 after 2**32 - 1."""
        return tuple((first_seed + index) % (MAX_SEED + 1) for index in range(len(self.texts)))


def request_type(arguments: ServeArguments) -> type[GenerationRequest]:
    """Return the request model whose bounds and defaults are those of this endpoint."""
    text = {"max_length": arguments.max_prompt_characters}
    side = {"default": arguments.default_size_px, "ge": 8, "le": arguments.max_size_px, "multiple_of": 8}
    prompts = tuple[Annotated[str, Field(**text)], ...] | None
    bounds: dict[str, dict[str, Any]] = {
        "prompt": {"default": None, **text},
        "prompts": {"default": None, "min_length": 1, "max_length": arguments.max_images},
        "negative_prompt": {"default": "", **text},
        "steps": {"default": arguments.inference_steps, "ge": 1, "le": arguments.max_inference_steps},
        "guidance_scale": {"default": arguments.guidance_scale, "ge": 0, "le": 30, "allow_inf_nan": False},
        "width": side,
        "height": side,
        "sampler": {"default": arguments.sampler},
        "adapter": {"default": arguments.adapter, "max_length": 64},
        "num_images": {"default": 1, "ge": 1, "le": arguments.max_images},
        "format": {"default": None},
    }
    fields: dict[str, Any] = {}
    for name, bound in bounds.items():
        theirs = (alias for alias, (ours, _) in ALIASES.items() if ours == name)
        declared, names = GenerationRequest.model_fields[name], AliasChoices(name, *theirs)
        field = Field(description=declared.description, validation_alias=names, **bound)
        fields[name] = (prompts if name == "prompts" else declared.annotation, field)
    made: type[GenerationRequest] = create_model("GenerationRequest", __base__=GenerationRequest, **fields)
    made.max_images = arguments.max_images
    return made


class GeneratedPicture(Model):
    """One picture of a JSON answer."""

    image: str
    """The file, in base64."""
    format: PictureFormat
    """PNG, JPEG or WebP."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    seed: int
    """Asked for again with the same settings, it gives the same picture."""
    prompt_index: int
    """Which of the request's prompts it shows."""
    flagged: bool | None
    """The safety checker replaced it with a black picture; null: this endpoint has none, so nothing checked it."""
    truncated: bool
    """The model did not read the end of the prompt: it is longer than its text encoder."""
    negative_truncated: bool
    """The model did not read the end of the negative prompt."""


class GenerationResponse(Model):
    """The JSON answer."""

    request_id: str
    """As in X-Request-Id and in the log."""
    images: tuple[GeneratedPicture, ...]
    """The pictures, prompt by prompt."""
    model: str
    """The model package or the digest of the model folder."""
    settings: GenerationSettings
    """What they were drawn with."""
    queue_s: float
    """Seconds before the model began."""
    render_s: float
    """Seconds from then until the last picture."""


def _finding(field: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("request", "{message}", {"field": field, "message": message})
