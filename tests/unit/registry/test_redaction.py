"""Policies: what may be recorded of each column."""

from __future__ import annotations

import pytest

from modelyard.errors import InvalidInput, NotFound
from modelyard.registry import Registry
from modelyard.registry.redaction import CLOSED, Policy

COLUMNS = ("age", "email", "city")


def test_a_policy_names_every_column_that_is_known(registry: Registry) -> None:
    policies = registry.policies
    assert policies.all() == {}
    assert policies.set("churn", {"email": "drop"}, COLUMNS) == Policy({"age": "keep", "email": "drop", "city": "keep"})
    policies.set("churn", {"city": "hash"}, (*COLUMNS, "new"))
    assert policies.all() == {"churn": Policy({"age": "keep", "email": "drop", "city": "hash", "new": "keep"})}
    assert policies.set("churn", {"email": "keep", "age": "bucket"}, ()).columns == {
        "age": "bucket", "email": "keep", "city": "hash", "new": "keep",
    }  # fmt: skip


def test_what_a_policy_does_not_name_is_dropped(registry: Registry) -> None:
    policy = registry.policies.set("churn", {"email": "hash"}, COLUMNS)
    assert [policy.action(name) for name in ("email", "age", "came later")] == ["hash", "keep", "drop"]
    assert CLOSED.action("age") == "drop"


def test_a_column_that_nobody_knows_is_no_silent_success(registry: Registry) -> None:
    with pytest.raises(NotFound, match="no such column of churn: emial") as error:
        registry.policies.set("churn", {"age": "drop", "emial": "drop"}, COLUMNS)
    assert error.value.hint == "did you mean email?"
    with pytest.raises(InvalidInput, match="expected one of drop, hash, bucket, keep, got 'burn'"):
        registry.policies.set("churn", {"age": "burn"}, COLUMNS)
    assert registry.policies.all() == {}


def test_changes_are_in_the_history_so_that_recorders_notice(registry: Registry) -> None:
    registry.policies.clear("churn")
    assert registry.marker() == 0
    registry.policies.set("churn", {"email": "drop", "city": "hash"}, COLUMNS)
    registry.policies.clear("churn")
    assert registry.policies.all() == {}
    assert [(c.action, c.detail) for c in registry.history("churn")] == [
        ("redact", "email=drop, city=hash"),
        ("redact", "everything kept"),
    ]
