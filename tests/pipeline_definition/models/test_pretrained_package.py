"""The pretrained model in the registry: what is registered, and what is refused."""

from typing import Any

import pytest

from params.settings import Settings
from pipeline_definition.errors import OperatorError
from pipeline_definition.models.registry import register_pretrained
from tests.pipeline_definition.fake_aws import FakeTarget, fake_s3, refused
from tests.pipeline_definition.packages import GROUP, described

AT = "s3://bucket/pretrained/sd2"
WHOLE = {
    f"{AT}/model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
    f"{AT}/unet/diffusion_pytorch_model-00001-of-00002.safetensors": b"1",
    f"{AT}/vae/diffusion_pytorch_model.safetensors": b"1",
    f"{AT}/text_encoder/model.safetensors": b"1",
}


class Asked:
    """A registry without the group, which notes what it is asked to make."""

    def __init__(self) -> None:
        self.groups: list[str] = []
        self.packages: list[dict[str, Any]] = []

    def target(self, files: dict[str, bytes]) -> FakeTarget:
        sagemaker = {
            "describe_model_package_group": self._no_group,
            "create_model_package_group": self._make_group,
            "create_model_package": self._make_package,
            "describe_model_package": lambda ModelPackageName: described(1),  # noqa: N803
        }
        return FakeTarget(answers={"sagemaker": sagemaker, "s3": fake_s3(files)})

    def _no_group(self, **_request: Any) -> dict[str, Any]:
        raise refused("DescribeModelPackageGroup", "does not exist", "ValidationException")

    def _make_group(self, ModelPackageGroupName: str) -> dict[str, Any]:  # noqa: N803
        self.groups.append(ModelPackageGroupName)
        return {"ModelPackageGroupArn": f"{GROUP}-pretrained"}

    def _make_package(self, **request: Any) -> dict[str, Any]:
        self.packages.append(request)
        return {"ModelPackageArn": f"{GROUP}/1"}


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate({"data": {"pretrained_uri": AT}})


def test_it_is_registered_approved_in_a_group_that_no_rule_watches(settings: Settings) -> None:
    asked = Asked()
    register_pretrained(settings, asked.target(WHOLE))
    assert asked.groups == ["sd-pipeline-pretrained"]
    (package,) = asked.packages
    assert (package["ModelPackageGroupName"], package["ModelApprovalStatus"]) == ("sd-pipeline-pretrained", "Approved")
    (container,) = package["InferenceSpecification"]["Containers"]
    assert container["ModelDataSource"]["S3DataSource"] == {
        "S3Uri": f"{AT}/",
        "S3DataType": "S3Prefix",
        "CompressionType": "None",
    }
    assert container["Image"] == settings.images.inference
    assert container["Environment"]["SERVE_GUIDANCE_SCALE"] == "7.5"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model_index.json", "has no model_index.json"),
        ("unet/diffusion_pytorch_model-00001-of-00002.safetensors", "unet/ has no weights in safetensors"),
        ("text_encoder/model.safetensors", "text_encoder/ has no weights in safetensors"),
    ],
)
def test_a_folder_that_cannot_be_served_is_refused(settings: Settings, missing: str, message: str) -> None:
    asked = Asked()
    files = {uri: content for uri, content in WHOLE.items() if not uri.endswith(missing)}
    with pytest.raises(OperatorError, match=message):
        register_pretrained(settings, asked.target(files))
    assert asked.packages == []
