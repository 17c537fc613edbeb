"""Section `gate` of a parameter set: what the quality gate asks of a model."""

from pydantic import Field

from params.model import Model, added


class Gate(Model):
    """What a model must reach to be registered and deployed."""

    max_fid: float = Field(90.0, ge=0)
    """Largest FID (MLPerf Training's target)."""
    min_clip_score: float = Field(0.15, ge=-1, le=1)
    """Smallest CLIP score, as a cosine (MLPerf Training's target)."""
    max_fid_above_pretrained: float | None = None
    """By how much the FID may be above the generic pretrained model's on the same prompts, judged on the difference's
    upper bound (95 %); null: not asked."""
    max_clip_score_below_pretrained: float | None = None
    """By how much the CLIP score may be below the generic pretrained model's, judged likewise; null: not asked."""
    max_fid_above_approved: float | None = None
    """By how much the FID may be above the approved model's on the same prompts, judged likewise; null: not asked."""
    max_clip_score_below_approved: float | None = None
    """By how much the CLIP score may be below the approved model's, judged likewise; null: not asked."""
    max_copies: float | None = added(None, ge=0, le=1)
    """Largest share of the drawn pictures that may be copies of training pictures, judged on its upper bound (95 %);
    null: not asked. Needs encode.descriptors."""
    min_prompt_following: float | None = added(None, ge=0, le=1)
    """Smallest share of pictures that show what their prompt asks for, judged on its lower bound (95 %); null: not
    asked. Needs evaluate.following."""

    @property
    def margins(self) -> tuple[float | None, ...]:
        """By how much the model may be worse than others, in the order of `parameter_names.MARGINS`."""
        return (
            self.max_fid_above_pretrained,
            self.max_clip_score_below_pretrained,
            self.max_fid_above_approved,
            self.max_clip_score_below_approved,
        )

    @property
    def compares_with_pretrained(self) -> bool:
        """Whether the generic pretrained model has to be judged, too."""
        return self.margins[:2] != (None, None)
