"""Trust: whose contents may be loaded although loading them can run code. Names, never a boolean."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from modelyard.errors import InvalidInput


class Trust(msgspec.Struct, frozen=True):
    """Digests (``sha256:…``, of a file or of a bundle) and paths of public keys (ed25519, PEM) that are trusted."""

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, *names: str) -> Trust:
        """Raises InvalidInput for a name that is neither a digest nor the path of a file."""
        checked = []
        for name in names:
            if name.startswith("sha256:"):
                if not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", name):
                    raise InvalidInput.at("trust", "sha256: and 64 hexadecimal digits", name)
                checked.append(name.lower())
            elif Path(name).expanduser().is_file():
                checked.append(str(Path(name).expanduser()))
            else:
                raise InvalidInput.at("trust", "a digest (sha256:…) or the path of a public key", name)
        return cls(tuple(checked))

    def allows(self, digest: str, path: Path) -> bool:
        """Whether ``digest`` is trusted by name, or a trusted key has signed it.

        ``path`` is the file or bundle with that digest, beside which its signature lies.
        """
        if digest in self.names:
            return True
        keys = [Path(name) for name in self.names if not name.startswith("sha256:")]
        if not keys:
            return False
        from modelyard.bundle import signing

        signature = signing.find_signature(path)
        return signature is not None and any(signing.is_signed(digest, signature, key) for key in keys)
