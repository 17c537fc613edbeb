"""What the queue carries and the model draws."""

from dataclasses import dataclass

from PIL.Image import Image


@dataclass(frozen=True)
class Shape:
    """What pictures must share to be denoised together."""

    width_px: int
    height_px: int
    steps: int
    guidance_scale: float
    sampler: str
    adapter: str = ""
    """Empty: the model's own weights."""
    adapter_scale: float = 1.0
    long_prompts: bool = False
    """Prompts are read with weights and in parts (steps.serving.prompt_weights)."""

    @property
    def work(self) -> float:
        """Cost of one picture, in pixels times steps: the unit in which the queue reckons time."""
        return float(self.width_px * self.height_px * self.steps)


@dataclass(frozen=True)
class PictureJob:
    prompt: str
    negative_prompt: str
    seed: int


@dataclass(frozen=True)
class Picture:
    image: Image
    flagged: bool | None
    """The safety checker replaced it with a black one; None: nothing checked it."""
    truncated: bool
    """The text encoder did not read the end of its prompt."""
    negative_truncated: bool = False
    """The text encoder did not read the end of what guidance leads away from."""


@dataclass(frozen=True)
class WarmUp:
    """What warming up has shown."""

    deviation: float
    """By how much a batch's result depends on its size; 0: not at all."""
    work: float
    """Cost of a picture that was drawn, in pixels times steps."""
    seconds: float
