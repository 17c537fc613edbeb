"""Signed pictures, read by c2pa's own reader: whole, changed, with other keys, and with a key in KMS."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from moto import mock_aws
from PIL import Image
from starlette.testclient import TestClient

from params.programs import ServeArguments
from steps.errors import StepError
from steps.serving import notary as module
from steps.serving.notary import Notary, digest, read_manifest, self_signed
from tests.steps.serving.conftest import ARGUMENTS, Serve
from tests.steps.serving.fakes import FakeRenderer

FORMATS = ("png", "jpeg", "webp")
GENERATION = {"seed": 7, "prompt_sha256": digest("a \u2603")}


@pytest.fixture(name="notary", scope="module")
def notary_fixture() -> Notary:
    return Notary(ARGUMENTS)


def picture(form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)).save(file, form.upper())
    return file.getvalue()


def pixels(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


@pytest.mark.parametrize("form", FORMATS)
def test_c2pas_own_reader_verifies_what_was_signed(notary: Notary, form: str) -> None:
    signed = notary.sign(picture(form), form, "tiny", GENERATION)
    with c2pa.Reader(f"image/{form}", io.BytesIO(signed)) as reader:
        whole = json.loads(reader.json())
    assert whole["validation_state"] == "Valid"
    assert [problem["code"] for problem in whole["validation_status"]] == ["signingCredential.untrusted"]
    (action,) = whole["manifests"][whole["active_manifest"]]["assertions"][0]["data"]["actions"]
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert np.array_equal(pixels(signed), pixels(picture(form)))
    assert len(signed) - len(picture(form)) < 6000


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_says_by_which_model_from_which_seed_and_prompt(notary: Notary, form: str) -> None:
    found = read_manifest(notary.sign(picture(form), form, "tiny", GENERATION), form)
    assert found is not None
    assert found["state"] == "Valid"
    assert found["generation"] == {"model": "tiny", **GENERATION}
    assert read_manifest(picture(form), form) is None


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_that_was_changed_after_it_was_signed_does_not_verify(notary: Notary, form: str) -> None:
    signed = bytearray(notary.sign(picture(form), form, "tiny", GENERATION))
    # Pixels: a WebP's manifest comes after them.
    signed[300 if form == "webp" else -30] ^= 1
    found = read_manifest(bytes(signed), form)
    assert found is not None
    assert (found["state"], "assertion.dataHash.mismatch" in found["problems"]) == ("Invalid", True)


def test_two_files_of_one_picture_share_pixels_and_no_signature(notary: Notary) -> None:
    one, two = (notary.sign(picture("png"), "png", "tiny", GENERATION) for _ in range(2))
    assert one != two
    assert np.array_equal(pixels(one), pixels(two))


def arguments(**changes: str) -> ServeArguments:
    return ARGUMENTS.model_copy(update=changes)


@pytest.fixture(name="files")
def files_fixture(tmp_path: Path) -> dict[str, str]:
    secret, chain = self_signed()
    (tmp_path / "key.pem").write_bytes(secret)
    (tmp_path / "chain.pem").write_bytes(chain)
    return {"signing_key": str(tmp_path / "key.pem"), "signing_certificates": str(tmp_path / "chain.pem")}


def test_a_key_of_a_file_signs(files: dict[str, str]) -> None:
    signed = Notary(arguments(**files)).sign(picture("png"), "png", "tiny", {})
    with c2pa.Reader("image/png", io.BytesIO(signed)) as reader:
        whole = json.loads(reader.json())
    own = x509.load_pem_x509_certificates(Path(files["signing_certificates"]).read_bytes())[0]
    serial = whole["manifests"][whole["active_manifest"]]["signature_info"]["cert_serial_number"]
    assert int(serial) == own.serial_number


def test_a_key_that_cannot_sign_ends_the_start_with_its_reason(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(self_signed()[0])
    with pytest.raises(StepError, match=r"not the key of signing_certificates: .*claimSignature"):
        Notary(arguments(**{**files, "signing_key": str(tmp_path / "other.pem")}))
    with pytest.raises(StepError, match="signing_certificates: a picture cannot be signed"):
        Notary(arguments(signing_key=files["signing_key"]))
    with pytest.raises(StepError, match=r"signing_key: .*none\.pem: No such file"):
        Notary(arguments(**{**files, "signing_key": str(tmp_path / "none.pem")}))
    Path(files["signing_certificates"]).write_text("no certificate")
    with pytest.raises(StepError, match="signing_key, signing_certificates: a picture cannot be signed"):
        Notary(arguments(**files))


@pytest.fixture(name="kms")
def kms_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("kms")


def test_a_key_in_kms_signs_without_leaving_it(kms: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["Arn"]
    public = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    made = module._certificate

    class InKms:
        def public_key(self) -> Any:
            return public

    def of_kms(whose: str, own: Any, by: Any) -> x509.Certificate:
        """Certify the key in KMS, by an authority whose key is here."""
        return made(whose, own if own is by else InKms(), by)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_certificate", of_kms)
    (tmp_path / "chain.pem").write_bytes(self_signed()[1])
    notary = Notary(arguments(signing_key=key, signing_certificates=str(tmp_path / "chain.pem")))
    for form in FORMATS:
        found = read_manifest(notary.sign(picture(form), form, "tiny", GENERATION), form)
        assert found is not None
        assert found["state"] == "Valid"
    other = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["Arn"]
    with pytest.raises(StepError, match="claimSignature"):
        Notary(arguments(signing_key=other, signing_certificates=str(tmp_path / "chain.pem")))


def generation(client: TestClient, form: str, **fields: object) -> dict[str, Any] | None:
    body = {"prompt": "a \u2603", "seed": 7, **fields}
    answer = client.post("/invocations", json=body, headers={"Accept": f"image/{form}"})
    assert answer.status_code == 200
    found = read_manifest(answer.content, form)
    return None if found is None else found["generation"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_answer_is_signed_unless_it_is_switched_off(serve: Serve, form: str) -> None:
    with serve(FakeRenderer().load) as (client, _):  # type: ignore[arg-type]
        found = generation(client, form, negative_prompt="b")
    assert found is not None
    assert (found["model"], found["seed"], found["watermark"]) == ("fake", 7, False)
    assert found["prompt_sha256"] == digest("a \u2603")
    assert found["negative_prompt_sha256"] == digest("b")
    assert "Prompt" not in found["settings"]
    with serve(FakeRenderer().load, provenance=False) as (client, _):  # type: ignore[arg-type]
        assert generation(client, form) is None
