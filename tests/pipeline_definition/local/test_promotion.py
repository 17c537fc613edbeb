"""An approval on this machine: the template's own state machine puts a real server behind the production endpoint."""

import queue
import threading
from collections.abc import Callable
from typing import cast

import pytest

from pipeline_definition.errors import OperatorError
from pipeline_definition.local.promotion import ENDPOINT, OUTPUTS, Promotion, definition
from pipeline_definition.local.services import Services
from pipeline_definition.models.promote import Production
from pipeline_definition.session import Target
from tests.pipeline_definition.local.conftest import World, until


@pytest.fixture(scope="module")
def place(world: World) -> Production:
    assert world.plane is not None
    return Production(Target("us-east-1", world.plane.url), OUTPUTS, say=lambda line: None, interval_s=0.1)


@pytest.fixture(scope="module")
def register(world: World) -> Callable[[str], str]:
    """Return a function that registers a model which answers with a name."""
    from pipeline_definition.local.archive import write_archive

    weights = world.folder / "weights.bin"
    weights.write_bytes(b"1")
    write_archive(world.folder / "model.tar.gz", {"weights.bin": weights})
    world.put("model.tar.gz", (world.folder / "model.tar.gz").read_bytes())
    world.sagemaker.create_model_package_group(ModelPackageGroupName="promoted")

    def registered(who: str) -> str:
        container = {"Image": "test/image:1", "ModelDataUrl": "s3://bucket/model.tar.gz", "Environment": {"WHO": who}}
        made = world.sagemaker.create_model_package(
            ModelPackageGroupName="promoted",
            InferenceSpecification={
                "Containers": [container],
                "SupportedContentTypes": ["text/x"],
                "SupportedResponseMIMETypes": ["text/test"],
            },
        )
        arn: str = made["ModelPackageArn"]
        return arn

    return registered


def approve(world: World, package: str) -> None:
    world.sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")


def answers(world: World) -> set[bytes]:
    runtime = world.client("sagemaker-runtime")
    asked = {"EndpointName": ENDPOINT, "Body": b"hello", "ContentType": "text/x"}
    return {runtime.invoke_endpoint(**asked)["Body"].read().split()[0] for _ in range(24)}


def packages(place: Production) -> list[str] | None:
    serving = place.serving()
    return [v.package for v in serving.variants] if serving and serving.status == "InService" else None


def test_approval_promotion_two_variants_and_rollback(
    world: World, place: Production, register: Callable[[str], str]
) -> None:
    first, second = register("first"), register("second")
    assert place.serving() is None
    with pytest.raises(OperatorError, match="is PendingManualApproval: `sd-pipeline models approve 1` first"):
        place.promote(first)
    with pytest.raises(OperatorError, match="nothing was promoted yet"):
        place.rollback()

    # Twice at once, before anything serves: by the approval and by hand.
    approve(world, first)
    place.follow(place.promote(first))
    until(lambda: packages(place) == [first], 120)
    assert answers(world) == {b"first"}
    with pytest.raises(OperatorError, match="there is none before it"):
        place.rollback()

    approve(world, second)
    until(lambda: packages(place) == [second], 60)
    assert answers(world) == {b"second"}

    serving = place.follow(place.promote(second, beside=first, share=0.5))
    assert [(v.variant, v.package, v.weight) for v in serving.variants] == [
        ("production", second, 0.5),
        ("beside", first, 0.5),
    ]
    assert answers(world) == {b"first", b"second"}

    # Back to one, and back to what served before that.
    place.follow(place.rollback())
    assert packages(place) == [second]
    place.follow(place.rollback())
    assert packages(place) == [first]
    assert answers(world) == {b"first"}


def test_a_model_that_does_not_start_leaves_the_former_in_service(
    world: World, place: Production, register: Callable[[str], str]
) -> None:
    if place.serving() is None:
        former = register("former")
        approve(world, former)
        place.follow(place.promote(former))
    before = packages(place)
    assert before
    broken = world.sagemaker.create_model_package(
        ModelPackageGroupName="promoted",
        InferenceSpecification={
            "Containers": [{"Image": "test/image:1", "Environment": {"BROKEN": "1"}}],
            "SupportedContentTypes": ["text/x"],
            "SupportedResponseMIMETypes": ["text/test"],
        },
    )["ModelPackageArn"]
    approve(world, broken)
    with pytest.raises(OperatorError, match=r"RolledBack: .*the endpoint serves the former model"):
        place.follow(place.promote(broken))
    # The approval promotes it too, and may end a moment later.
    until(lambda: packages(place) == before, 60)


def test_every_name_of_the_template_is_filled_in() -> None:
    assert "${" not in definition()


@pytest.mark.parametrize(("group", "promoted"), [("sd-pipeline", 1), ("sd-pipeline-pretrained", 0), (None, 0)])
def test_only_a_groups_own_models_are_promoted(
    group: str | None, promoted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr(Promotion, "_start", lambda self, package: started.put(package))
    promotion = Promotion(cast(Services, None))
    promotion.approved({"ModelPackageArn": "arn", "ModelPackageGroupName": group})
    if promoted:
        assert started.get(timeout=10) == "arn"
    # A thread that should not be there would have been started before `approved` returned.
    assert started.empty() and not [t for t in threading.enumerate() if "approved" in t.name]
