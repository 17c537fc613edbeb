"""The descriptors artifact: a small vector for each training picture, by which copies of it are found.

train-NNNNN.descriptors.safetensors   of the rows of latents shard train-NNNNN: descriptor [rows, width] float16
plan.json                             which sample of which verified shard is which row
manifest.json                         the files, the model, and the captions that occur most often; written last
"""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
from safetensors.numpy import load

from params.model import Model
from steps.artifact import RECORDS_FOLDER, PartRecord
from steps.data.encoding.decoding import ShardsSource
from steps.data.encoding.latents_artifact import EncodedBlock
from steps.data.encoding.plan import PlannedShard, train_rows
from steps.data.encoding.samples import read_table
from steps.data.latents.block import Array, digest, to_bytes
from steps.data.storage import Storage
from steps.errors import StepError

SUFFIX: Final = ".descriptors.safetensors"
TENSOR: Final = "descriptor"
# Twice as many are counted at once: some 200 MB.
COUNTED_CAPTIONS: Final = 1 << 19
LISTED_CAPTIONS: Final = 1024


class DescriptorsRecord(PartRecord):
    folder: ClassVar[str] = RECORDS_FOLDER

    name: str
    first_row: int
    """Of the training split."""
    rows: int
    bytes: int
    xxh3: str

    @property
    def part(self) -> tuple[str, int]:
        """Name and size of the file."""
        return self.name, self.bytes


class DescriptorsManifest(Model):
    plan_digest: str
    model: str
    """Folder of the vision model below the evaluator's."""
    model_digest: str
    samples: int
    repeated: tuple[tuple[str, int], ...]
    """The captions that most samples share, and how many do, the most repeated one first."""
    files: tuple[DescriptorsRecord, ...]


def file_name(shard: str) -> str:
    """Return the name of the file with a latents shard's descriptors."""
    return shard.removesuffix(".tar") + SUFFIX


def write_descriptors(
    storage: Storage, plan_digest: str, planned: PlannedShard, blocks: Sequence[EncodedBlock]
) -> DescriptorsRecord:
    """Write a file from a shard's blocks. Raises OSError where it does not arrive."""
    content = to_bytes({TENSOR: np.concatenate([load(one.content)[TENSOR] for one in blocks])})
    record = DescriptorsRecord(
        plan_digest=plan_digest,
        name=file_name(planned.name),
        first_row=planned.first_row,
        rows=planned.rows,
        bytes=len(content),
        xxh3=digest(content),
    )
    storage.write_checked(record.name, content)
    record.write(storage)
    return record


def read_descriptors(storage: Storage, record: DescriptorsRecord) -> Array:
    """Return the descriptors of a file, float16 [rows, width]. Raises StepError unless they are what was written."""
    content = storage.read(record.name)
    if digest(content) != record.xxh3:
        raise StepError(f"{storage.uri}/{record.name}: not, to the bit, what Encode wrote; delete it and encode again")
    return load(content)[TENSOR]


def repeated_captions(source: ShardsSource, kept: int = COUNTED_CAPTIONS) -> tuple[tuple[str, int], ...]:
    """Return the captions that most training pictures share, the most repeated one first.

    Memory holds twice `kept` captions. Where there are more, each loses what the first that is given up had (Misra and
    Gries 1982): none is missed that occurs more often than samples / kept.
    """
    storage, plan, counts = Storage(source.shards_uri), source.plan, Counter[str]()
    for name in plan.sources:
        table = read_table(storage, name, plan.selection.min_original_px)
        counts.update(table.captions[row] for rows in train_rows(table, plan.selection) for row in rows.tolist())
        if len(counts) > 2 * kept:
            floor = counts.most_common(kept + 1)[-1][1]
            counts = Counter({caption: times - floor for caption, times in counts.items() if times > floor})
    return tuple((caption, times) for caption, times in counts.most_common(LISTED_CAPTIONS) if times > 1)
