"""Keys and signatures, of files and of bundles; and what a trust may name."""

from __future__ import annotations

import stat

import pytest

from modelyard import api
from modelyard.bundle import Bundle, Trust, signing
from modelyard.errors import Conflict, InvalidInput, NotFound, Refused


@pytest.fixture
def keys(tmp_path):
    return signing.keygen(tmp_path / "publisher")


def test_keys_are_private_and_never_overwritten(keys):
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert public.name == "publisher.pub"
    assert b"PUBLIC" in public.read_bytes()
    with pytest.raises(Conflict, match="already"):
        signing.keygen(private)


def test_a_file_is_signed_beside_itself(keys, tmp_path):
    private, public = keys
    path = tmp_path / "model.pkl"
    path.write_bytes(b"one")
    with pytest.raises(NotFound, match="no signature"):
        signing.verify(path, public)
    assert signing.sign(path, private) == tmp_path / "model.pkl.sig"
    assert signing.verify(path, public).startswith("sha256:")
    path.write_bytes(b"two")
    with pytest.raises(Refused, match="not for these bytes"):
        signing.verify(path, public)


@pytest.mark.parametrize("damage", [b"", b"!!!", b"AAAA", b"\xff" * 90])
def test_a_damaged_signature_signs_nothing(keys, tmp_path, damage):
    private, public = keys
    path = tmp_path / "model.pkl"
    path.write_bytes(b"one")
    signing.sign(path, private).write_bytes(damage)
    with pytest.raises(Refused):
        signing.verify(path, public)


def test_a_bundle_is_signed_by_its_digest_as_folder_and_file(keys, copy, tmp_path):
    private, public = keys
    where = signing.sign(copy, private)
    assert where == copy / "beside" / "bundle.sig"
    bundle = Bundle.open(copy)
    trust = Trust.of(str(public))
    assert signing.verify(copy, public) == bundle.digest
    assert trust.allows(bundle.digest, copy)
    assert not trust.allows("sha256:" + "0" * 64, copy)
    # It travels in the file, and a file may have one beside it too.
    file = bundle.write_file(tmp_path / "churn.zip")
    assert Bundle.open(file).load(trust=trust)
    unpacked = Bundle.open(file)
    assert trust.allows(unpacked.digest, unpacked.folder)
    signing.sign(file, private)
    assert signing.verify(file, public) == bundle.digest


def test_keys_of_another_kind_are_explained(keys, tmp_path):
    private, public = keys
    path = tmp_path / "model.pkl"
    path.write_bytes(b"one")
    with pytest.raises(InvalidInput, match="private key"):
        signing.sign(path, public)
    signing.sign(path, private)
    with pytest.raises(InvalidInput, match="public key"):
        signing.verify(path, private)
    with pytest.raises(NotFound, match="no such key"):
        signing.verify(path, tmp_path / "nowhere")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "ec.pub").write_bytes(pem)
    with pytest.raises(InvalidInput, match="ed25519"):
        signing.verify(path, tmp_path / "ec.pub")
    with pytest.raises(NotFound):
        signing.sign(tmp_path / "nothing", private)


def test_trust_names_digests_and_files_and_nothing_else(keys, monkeypatch):
    _, public = keys
    digest = "sha256:" + "ab" * 32
    assert Trust.of(digest.replace("ab", "AB")).names == (digest,)
    for wrong in ("sha256:abc", "abc", "True", "", "*"):
        with pytest.raises(InvalidInput, match="trust"):
            Trust.of(wrong)
    monkeypatch.setenv("MODELYARD_TRUST", f"{digest},{public}")
    assert api.trusting().names == (digest, str(public))
    assert api.trusting([other := "sha256:" + "cd" * 32]).names == (other, digest, str(public))
    monkeypatch.delenv("MODELYARD_TRUST")
    assert api.trusting() == Trust()
    assert not Trust().allows(digest, public)
