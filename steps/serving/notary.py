"""Signs what a picture says of itself: a C2PA manifest (https://c2pa.org) inside each PNG, JPEG and WebP.

Reads the key and its certificates: of SERVE_SIGNING_KEY, a PEM file or a key of AWS KMS that never leaves it, and
SERVE_SIGNING_CERTIFICATES. Without a key one is made at start, with a certificate that nobody else trusts. No
time-stamp authority is asked, and nothing is looked up: what is signed and read needs no network.
"""

import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image

from params.programs import ServeArguments
from steps.errors import StepError
from steps.serving.objects import read

logger = logging.getLogger(__name__)

SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
GENERATION: Final = "org.sd-pipeline.generation"
IN_KMS: Final = re.compile(r"arn:aws[\w-]*:kms:|alias/")
# Thumbnails would make files three times as large; no reader and no signer of these may ask the network.
_HOW: Final = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}
# By the kind of a certificate's key: C2PA's name and KMS's.
_ALGORITHMS: Final = {
    "secp256r1": ("ES256", "ECDSA_SHA_256"),
    "secp384r1": ("ES384", "ECDSA_SHA_384"),
    "RSA": ("PS256", "RSASSA_PSS_SHA_256"),
}


class Notary:
    """Signs pictures with one key."""

    def __init__(self, arguments: ServeArguments) -> None:
        """Get the key and try it. Raises StepError where a picture that it signs does not verify."""
        key, chain = arguments.signing_key, read(arguments.signing_certificates, "signing_certificates")
        if not key:
            secret, chain = self_signed()
            logger.warning("pictures are signed with a key made at start, which nobody trusts: set SERVE_SIGNING_KEY")
        else:
            secret = b"" if IN_KMS.match(key) else read(key, "signing_key")
        self._context = c2pa.Context.from_dict(_HOW)
        try:
            self._signer = _signer(secret, key, chain)
            Image.new("RGB", (8, 8)).save(file := io.BytesIO(), "PNG")
            tried = read_manifest(self.sign(file.getvalue(), "png", "none", {}), "png")
        except (ValueError, KeyError, c2pa.C2paError) as error:
            raise StepError(f"signing_key, signing_certificates: a picture cannot be signed: {error}") from None
        if not tried or tried["state"] == "Invalid":
            raise StepError(f"signing_key: not the key of signing_certificates: {tried and tried['problems']}")

    def sign(self, content: bytes, form: str, model: str, generation: Mapping[str, Any]) -> bytes:
        """Return a picture's file with a manifest: which model made it, and how."""
        action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": {"name": model}}
        manifest = {
            "claim_generator_info": [{"name": "sd-pipeline"}],
            "format": f"image/{form}",
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": [action]}},
                {"label": GENERATION, "data": {"model": model, **generation}},
            ],
        }
        signed = io.BytesIO()
        with c2pa.Builder(manifest, self._context) as builder, self._signer() as signer:
            builder.sign(signer, f"image/{form}", io.BytesIO(content), signed)
        return signed.getvalue()


def read_manifest(content: bytes, form: str) -> dict[str, Any] | None:
    """Return what a picture's manifest says and whether that holds; None where it has none.

    The state is Trusted, Valid (what was signed is unchanged, and no list says whose key it was) or Invalid.
    """
    try:
        context, file = c2pa.Context.from_dict(_HOW), io.BytesIO(content)
        with context, c2pa.Reader(f"image/{form}", file, context=context) as reader:
            whole = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return {"state": "Invalid", "problems": [str(error)]}
    active = whole["manifests"][whole["active_manifest"]]
    said = {item["label"]: item.get("data") for item in active.get("assertions", ())}
    return {
        "state": whole.get("validation_state", "Invalid"),
        "problems": [problem["code"] for problem in whole.get("validation_status", ())],
        "signed_by": active.get("signature_info", {}).get("issuer", ""),
        "generation": said[GENERATION] if isinstance(said.get(GENERATION), dict) else {},
    }


def digest(text: str) -> str:
    """Return the digest by which a manifest names a prompt without telling it."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def self_signed() -> tuple[bytes, bytes]:
    """Return a new key and its certificates, PEM: none may sign itself, so an authority comes along."""
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = [_certificate("endpoint", own, authority), _certificate("authority", authority, authority)]
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret = own.private_bytes(serialization.Encoding.PEM, *plain)
    return secret, b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)


def _certificate(whose: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    is_authority, now = key is by, datetime.now(UTC)
    names = (x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, f"self-signed {name}") for name in ("authority", whose))
    issuer, subject = (x509.Name([name]) for name in names)
    email = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    usage = x509.KeyUsage(True, False, False, False, False, is_authority, False, False, False)
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=397))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    return (builder if is_authority else builder.add_extension(email, critical=False)).sign(by, hashes.SHA256())


def _signer(secret: bytes, key: str, chain: bytes) -> Callable[[], c2pa.Signer]:
    """Return what makes a signer: several pictures are signed at once, each by its own."""
    public: Any = x509.load_pem_x509_certificates(chain)[0].public_key()
    name, kms_name = _ALGORITHMS[getattr(getattr(public, "curve", None), "name", "RSA")]
    if secret:
        return lambda: c2pa.Signer.from_info(c2pa.C2paSignerInfo(name.lower().encode(), chain, secret, None))
    import boto3

    kms: Any = boto3.client("kms")

    def signature(claim: bytes) -> bytes:
        # KMS takes 4,096 bytes. A claim holds digests of what it says, 1.6 KB, whatever the prompt.
        return bytes(kms.sign(KeyId=key, Message=claim, MessageType="RAW", SigningAlgorithm=kms_name)["Signature"])

    return lambda: c2pa.Signer.from_callback(signature, c2pa.C2paSigningAlg[name], chain.decode(), None)
