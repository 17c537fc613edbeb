"""Preflight knows scale: what would only break at a billion rows is told before the first of them."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from params.settings import LocalWorld, Settings
from params.spilling import LOOK_BYTES, ROW_BYTES
from pipeline_definition.checks import scale
from pipeline_definition.checks.findings import Finding
from pipeline_definition.checks.scale import memory_bytes_of, scale_findings
from pipeline_definition.cost.jobs import TIME_MARGIN
from pipeline_definition.jobs.instances import every_type
from pipeline_definition.jobs.planned import Values, all_steps, planned_jobs
from steps.data.latents.order import SampleOrder
from tests.pipeline_definition.cost.samples import changed, definition, settings


def found(asked: Settings, **changes: str) -> dict[str, Finding]:
    content = definition()
    jobs = planned_jobs(content, Values(content, changes))
    return {one.parameter: one for one in scale_findings(asked, content, changes, jobs)}


def at(rows: int, file_system: str = "fsx", **encode: int) -> Settings:
    return changed(data={"rows": rows}, file_system={"kind": file_system}, encode=encode)


def test_a_limit_wants_a_tenth_more_than_the_forecast() -> None:
    rows = {"MaxRows": "0"}
    few = at(40_000_000, rows_per_shard=8192)
    # The definition's own limit, a day, against what so many rows take.
    finding = found(few, **rows)["encode.job.max_runtime_s"]
    hours, limit = (float(word) for word in finding.problem.replace(",", "").split() if word[0].isdigit())
    assert finding.blocking and hours * TIME_MARGIN > limit
    fitting = int(40_000_000 * limit / hours / TIME_MARGIN * 0.99)
    assert "encode.job.max_runtime_s" not in found(at(fitting), **rows)
    assert "encode.job.max_runtime_s" in found(at(int(fitting * 1.03)), **rows)


def test_a_folder_of_lustre_wants_few_files_and_s3_does_not_care() -> None:
    many = at(1_130_000_000, rows_per_shard=8192)
    finding = found(many)["encode.rows_per_shard"]
    assert not finding.blocking and "137,940 files" in finding.problem
    size = int(finding.fix.split()[3])
    assert size % 256 == 0 and "encode.rows_per_shard" not in found(at(1_130_000_000, rows_per_shard=size))
    assert "encode.rows_per_shard" in found(at(1_130_000_000, rows_per_shard=size - 256))
    assert "encode.rows_per_shard" not in found(at(1_130_000_000, "s3", rows_per_shard=8192))


def test_a_shard_that_a_host_cannot_hold_is_refused_with_one_that_it_can() -> None:
    small = {"EncodeInstanceType": "ml.g5.xlarge"}
    finding = found(at(3_300_000, rows_per_shard=262_144), **small)["encode.rows_per_shard"]
    assert finding.blocking and "ml.g5.xlarge has 16" in finding.problem
    size = int(finding.fix.split()[3])
    assert "encode.rows_per_shard" not in found(at(3_300_000, rows_per_shard=size), **small)
    assert found(at(3_300_000, rows_per_shard=262_144)).get("encode.rows_per_shard") is None


def test_an_index_that_the_ranks_cannot_hold_is_refused() -> None:
    finding = found(at(2_000_000_000, rows_per_block=1, rows_per_shard=32_768))["encode.rows_per_block"]
    assert finding.blocking and "ml.p4d.24xlarge" in finding.problem
    size = int(finding.fix.split()[3])
    assert "encode.rows_per_block" not in found(at(2_000_000_000, rows_per_block=size, rows_per_shard=32_768))


def test_more_reads_than_s3_answers_are_told_of_where_s3_is_read() -> None:
    hosts = {"TrainingInstanceCount": "64"}
    finding = found(at(3_300_000, "s3_direct", rows_per_block=1), **hosts)["encode.rows_per_block"]
    assert not finding.blocking and "5,500 GETs" in finding.problem
    assert "encode.rows_per_block" not in found(at(3_300_000, "fsx", rows_per_block=1), **hosts)
    assert "encode.rows_per_block" not in found(at(3_300_000, "s3_direct"), **hosts)


def test_more_ranks_than_lanes_read_more_than_they_use_and_are_told_so() -> None:
    finding = found(at(3_300_000), TrainingInstanceCount="64")["train.max_lanes"]
    assert not finding.blocking and "512 ranks share 256 lanes, and each reads 2.0 times" in finding.problem
    assert "set it to 512" in finding.fix
    assert "train.max_lanes" not in found(at(3_300_000), TrainingInstanceCount="32")
    wide = changed(data={"rows": 3_300_000}, train={"max_lanes": 512})
    assert "train.max_lanes" not in found(wide, TrainingInstanceCount="64")


@given(st.integers(1, 3_000_000_000), st.sampled_from([64, 256, 1024]), st.integers(1, 200_000))
def test_what_a_finding_says_to_set_is_no_finding(rows: int, block: int, shard: int) -> None:
    asked = at(rows, rows_per_block=block, rows_per_shard=shard)
    finding = found(asked).get("encode.rows_per_shard")
    if finding is not None and not finding.blocking:
        mended = at(rows, rows_per_block=block, rows_per_shard=int(finding.fix.split()[3]))
        assert "files" not in str(found(mended).get("encode.rows_per_shard"))


@pytest.mark.parametrize(("name", "gib"), [("ml.c6i.4xlarge", 32), ("ml.g5.12xlarge", 192), ("ml.r5.large", 16)])
def test_a_hosts_memory_is_told_by_its_name(name: str, gib: int) -> None:
    assert memory_bytes_of(name) == gib * 2**30


def test_every_type_has_memory() -> None:
    assert all(memory_bytes_of(name) >= 2**30 for name in every_type())


def test_a_set_for_this_machine_has_no_scale() -> None:
    assert found(settings().model_copy(update={"local": LocalWorld()}), MaxRows="1") == {}


def test_what_is_said_of_a_block_in_memory_covers_its_place_in_the_order() -> None:
    blocks = 500_000
    tracemalloc.start()
    order = SampleOrder(256 * blocks, 0, global_batch_size=2048, block_rows=np.full(blocks, 256))
    next(order.stretches(0, 0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.3 * scale.BLOCK_BYTES < peak / blocks < scale.BLOCK_BYTES


def test_a_volume_holds_the_temporary_files_of_download_or_is_refused_with_one_that_does() -> None:
    few, many = at(100_000_000), at(1_130_000_000)
    assert "download.job.volume_size_gb" not in found(few)
    finding = found(many)["download.job.volume_size_gb"]
    needed_gb = int(finding.fix.split()[3])
    assert finding.blocking and needed_gb > 1.13 * (ROW_BYTES + LOOK_BYTES) * 1e9 / 2**30
    content = definition()
    [download] = (step for step in all_steps(content["Steps"]) if step["Name"] == "Download")
    hosts = download["Arguments"]["ProcessingResources"]["ClusterConfig"]
    for size, is_refused in ((needed_gb - 1, True), (needed_gb, False)):
        hosts["VolumeSizeInGB"] = size
        findings = scale_findings(many, content, {}, planned_jobs(content, Values(content, {})))
        assert any(one.parameter == "download.job.volume_size_gb" for one in findings) is is_refused
    hosts["VolumeSizeInGB"] = 1
    own_disk = {"DownloadInstanceType": "ml.g5.xlarge"}
    findings = scale_findings(many, content, own_disk, planned_jobs(content, Values(content, own_disk)))
    assert all(one.parameter != "download.job.volume_size_gb" for one in findings)
