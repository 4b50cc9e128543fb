"""Signatures: a publisher's ed25519 key over a digest. Needs ``cryptography`` (the ``signing`` extra)."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any

from modelyard.bundle.contents import BESIDE
from modelyard.bundle.manifest import NAME, digest_of
from modelyard.errors import BadBundle, Conflict, InvalidInput, MissingDependency, NotFound, Refused, RemoteFailed

#: What is signed besides the digest, so that a signature made for something else never fits.
PURPOSE = b"modelyard signature 1\n"


def keygen(path: Path) -> tuple[Path, Path]:
    """Make a key pair: the private key at ``path`` (readable by its owner only), the public one at ``path.pub``.

    Raises Conflict where either file exists.
    """
    from_cryptography = _library()
    public_path = path.with_name(path.name + ".pub")
    for taken in (path, public_path):
        if taken.exists():
            raise Conflict(f"a key is there already: {taken}", hint="choose another name; keys are never overwritten")
    key = from_cryptography["ed25519"].Ed25519PrivateKey.generate()
    encoding = from_cryptography["serialization"]
    private = key.private_bytes(encoding.Encoding.PEM, encoding.PrivateFormat.PKCS8, encoding.NoEncryption())
    public = key.public_key().public_bytes(encoding.Encoding.PEM, encoding.PublicFormat.SubjectPublicKeyInfo)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(private)
        public_path.write_bytes(public)
    except OSError as error:
        raise RemoteFailed(f"cannot write the key: {error}") from error
    return path, public_path


def sign(path: Path, private_key: Path) -> Path:
    """Sign a file, or a bundle (its digest), and return where the signature lies.

    That is ``path.sig``; for a bundle in a folder ``beside/bundle.sig`` in it, so that it travels along.
    """
    from_cryptography = _library()
    key = _load(private_key, "private")
    if not isinstance(key, from_cryptography["ed25519"].Ed25519PrivateKey):
        raise InvalidInput.at("private key", "an ed25519 private key in PEM", str(private_key))
    signature = key.sign(PURPOSE + signed_digest(path).encode())
    where = _signature_path(path)
    try:
        where.parent.mkdir(exist_ok=True)
        where.write_bytes(base64.b64encode(signature) + b"\n")
    except OSError as error:
        raise RemoteFailed(f"cannot write the signature: {error}") from error
    return where


def verify(path: Path, public_key: Path) -> str:
    """The digest of a file or bundle if ``public_key`` has signed it. Raises NotFound, Refused."""
    digest = signed_digest(path)
    signature = find_signature(path)
    if signature is None:
        raise NotFound(f"no signature beside {path}: {_signature_path(path)}")
    if not is_signed(digest, signature, public_key):
        raise Refused(f"the signature of {path} was not made with this key, or not for these bytes: {public_key}")
    return digest


def is_signed(digest: str, signature: Path, public_key: Path) -> bool:
    """Whether the file ``signature`` holds a signature of ``digest`` by ``public_key``."""
    from_cryptography = _library()
    key = _load(public_key, "public")
    if not isinstance(key, from_cryptography["ed25519"].Ed25519PublicKey):
        raise InvalidInput.at("trust", "an ed25519 public key in PEM", str(public_key))
    try:
        key.verify(base64.b64decode(signature.read_bytes()), PURPOSE + digest.encode())
    except (from_cryptography["InvalidSignature"], binascii.Error):
        return False
    return True


def signed_digest(path: Path) -> str:
    """The digest that a signature of ``path`` is for: a bundle's own, every file verified, or that of the file."""
    import zipfile

    from modelyard.bundle.opening import Bundle

    if not path.exists():
        raise NotFound(f"no such file: {path}")
    if path.is_dir():
        return Bundle.open(path).digest
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                is_bundle = NAME in archive.namelist()
        except zipfile.BadZipFile as error:
            raise BadBundle(f"{path.name} is damaged: {error}") from None
        if is_bundle:
            return Bundle.open(path).digest
    return digest_of(path)


def find_signature(path: Path) -> Path | None:
    """The signature that lies beside a file or in a bundle, if there is one."""
    where = _signature_path(path)
    return where if where.is_file() else None


def _signature_path(path: Path) -> Path:
    return path / BESIDE / "bundle.sig" if path.is_dir() else path.with_name(path.name + ".sig")


def _load(path: Path, kind: str) -> Any:
    serialization = _library()["serialization"]
    try:
        data = path.read_bytes()
        if kind == "private":
            return serialization.load_pem_private_key(data, password=None)
        return serialization.load_pem_public_key(data)
    except FileNotFoundError:
        raise NotFound(f"no such key: {path}") from None
    except (ValueError, TypeError) as error:
        raise InvalidInput.at(f"{kind} key", f"a {kind} key in PEM", f"{path} ({error})") from None


def _library() -> dict[str, Any]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingDependency.extra("cryptography", "signing", "signing and checking signatures") from None
    return {"InvalidSignature": InvalidSignature, "serialization": serialization, "ed25519": ed25519}
