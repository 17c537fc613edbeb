"""What the metrics of metrics.json are called by people, and which of them are better lower or higher."""

import re
from typing import Final

from params import layout

# A metric's name, whose it is where not the model's, and on which side of that one's a difference counts.
NAME: Final = re.compile(r"(?P<metric>.+?)(?:_(?P<side>above|below))?(?:_(?P<of>untrained|pretrained|approved|real))?")
FIDS: Final = {
    layout.FID: "FID",
    layout.CLIP_FID: "CLIP-FID",
    layout.FID_PYTORCH: "FID, resized as pytorch-fid does",
    layout.FID_CLEAN: "FID, resized as clean-fid does",
    layout.FD_DINOV2: "FD-DINOv2",
}
INFINITE: Final = {f"{key}_infinity": f"{name} of infinitely many" for key, name in FIDS.items()}
METRIC_NAMES: Final = {
    **FIDS,
    **INFINITE,
    layout.KID: "KID",
    layout.CLIP_SCORE: "CLIP score",
    layout.CMMD: "CMMD",
    layout.PICK_SCORE: "PickScore",
    layout.CLIP_SCORE_MARGIN: "CLIP score of real pictures with their own captions above the others'",
}
ROWS: Final = {
    "": "model",
    "untrained": "untrained model",
    "pretrained": "generic pretrained model",
    "approved": "approved model",
    "real": "real pictures",
}
LOWER_IS_BETTER: Final = (*FIDS, *INFINITE, layout.KID, layout.CMMD, layout.COPIES, layout.COPIES_REPEATED)
HIGHER_IS_BETTER: Final = (layout.CLIP_SCORE, layout.PRECISION, layout.RECALL, layout.PICK_SCORE)


def metric_name(key: str, judged_by: str = "") -> str:
    """Return what an entry of metrics.json is called; a difference by what it was judged by, where that is told."""
    found = NAME.fullmatch(key)
    base, side, of = found.groups() if found else (key, None, None)
    name = METRIC_NAMES.get(judged_by or base, base.replace("_", " "))
    whose = f" of the {ROWS[of]}" if of else ""
    return f"{name} {side} the {ROWS[of or '']}'s" if side else name + whose
