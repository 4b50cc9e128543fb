"""Names, versions, aliases and history of bundles, in SQLite or PostgreSQL, over a store of blobs."""

from modelyard.registry.records import Change, Reference, Version, check_alias, check_name
from modelyard.registry.registry import Registry

__all__ = ["Change", "Reference", "Registry", "Version", "check_alias", "check_name"]
