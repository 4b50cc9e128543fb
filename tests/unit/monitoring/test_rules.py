"""Rules are kept as changes, laid over the defaults, and never hold a secret."""

from __future__ import annotations

import pytest

from modelyard.errors import InvalidInput, NotFound
from modelyard.monitoring import rules
from modelyard.monitoring.rules import DEFAULTS, AlertRule, Rules, Sink
from modelyard.registry import Registry, states


def test_without_changes_the_defaults_hold(registry: Registry) -> None:
    assert rules.load(registry.database) == DEFAULTS
    assert rules.load(registry.database, "churn") == DEFAULTS
    assert rules.changes(registry.database) == {}


def test_changes_for_one_model_lie_over_those_for_all(registry: Registry) -> None:
    rules.edit(registry.database, put={"drift.ks": "0.2", "latency.slower": "1"})
    rules.edit(registry.database, "churn", put={"drift.ks": "0.3", "drift.ignore": "postcode, session"})
    assert rules.load(registry.database).drift.ks == 0.2
    own = rules.load(registry.database, "churn")
    assert (own.drift.ks, own.latency.slower, own.drift.ignore) == (0.3, 1.0, ("postcode", "session"))
    general, others = rules.load_all(registry.database)
    assert (general.drift.ks, others["churn"]) == (0.2, own)
    # only what was changed is kept, so that defaults may improve
    assert states.get(registry.database, "rules", "churn") == '{"drift":{"ks":"0.3","ignore":["postcode","session"]}}'


def test_what_is_taken_back_is_the_default_again(registry: Registry) -> None:
    rules.edit(registry.database, put={"drift.ks": "0.2", "drift.q": "0.01"})
    assert rules.edit(registry.database, drop=["drift.ks"]).drift == rules.DriftRules(q=0.01)
    assert rules.edit(registry.database, drop=["drift"]) == DEFAULTS
    assert states.get(registry.database, "rules") is None
    with pytest.raises(NotFound, match=r"nothing was changed at drift.ks"):
        rules.edit(registry.database, drop=["drift.ks"])


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        ("drift.ks", "much", "drift.ks: expected a number, got another text"),
        ("drift.ks", "-1", "drift.ks: expected a number >= 0.0"),
        ("drift.enter", "5", r"drift.enter: expected at most drift.of, 3, got 5"),
        ("drift.kz", "1", "no such rule: kz"),
        ("nothing", "1", "no such rule: nothing"),
        ("alerts.all.sinks", "pager", "no such sink of the rule all: pager"),
        ("sinks.ops.kind", "telegraph", "sinks"),
        ("sinks.ops.kind", "slack", "sinks.ops.url: expected an address"),
        ("sinks.ops.kind", "pagerduty", "sinks.ops.secret: expected where PagerDuty's routing key is"),
        ("drift.ks.more", "1", "no such rule: ks.more"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    registry: Registry, rule: str, value: str, message: str
) -> None:
    with pytest.raises((InvalidInput, NotFound), match=message):
        rules.edit(registry.database, put={rule: value})
    assert rules.load(registry.database) == DEFAULTS


def test_a_secret_is_named_not_told(registry: Registry) -> None:
    put = {"sinks.ops.kind": "webhook", "sinks.ops.url": "https://example.org/a-secret-path", "sinks.ops.secret": "xyz"}
    with pytest.raises(InvalidInput, match=r"sinks.ops.secret: expected env:NAME or file:PATH") as refused:
        rules.edit(registry.database, put=put)
    assert "xyz" not in str(refused.value)
    made = rules.edit(registry.database, put={**put, "sinks.ops.secret": "env:OPS"})
    assert made.sinks["ops"].secret == "env:OPS"
    # what is shown and what the history says give no address away that lets anybody send
    shown = rules.shown_rules(made)
    assert shown["sinks"]["ops"]["url"] == "https://example.org/…"
    row = registry.database.query("SELECT detail FROM changes WHERE action = 'rules' ORDER BY id DESC LIMIT 1")[0]
    assert "sinks.ops.url set" in row["detail"]
    assert "secret-path" not in row["detail"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example.org/services/T0/B0/XYZ", "https://hooks.example.org/…"),
        ("smtp://user:word@mail.example.org:25", "smtp://mail.example.org:25"),
        ("env:SLACK_URL", "env:SLACK_URL"),
        ("", ""),
    ],
)
def test_of_addresses_the_host_is_shown(url: str, shown: str) -> None:
    assert rules.masked(url) == shown


def test_sinks_and_alert_rules_are_for_all_models(registry: Registry) -> None:
    with pytest.raises(InvalidInput, match="for one model a rule of drift, latency, budget"):
        rules.edit(registry.database, "churn", put={"sinks.ops.kind": "log"})


def test_a_rule_asks_for_kinds_models_and_severity() -> None:
    rule = AlertRule(kinds=("drift", "unit"), models=("churn",), least="error")
    assert rule.asks_for("churn", "unit", "error")
    assert not rule.asks_for("churn", "unit", "warning")
    assert not rule.asks_for("churn", "latency", "critical")
    assert not rule.asks_for("line", "unit", "critical")
    assert AlertRule().asks_for("any", "budget", "warning")
    assert not AlertRule().asks_for("any", "budget", "info")


def test_an_email_needs_somebody_to_write_to() -> None:
    with pytest.raises(InvalidInput, match="a sender and to whom"):
        rules.check(Rules(sinks={"log": Sink(kind="log"), "mail": Sink(kind="email", url="smtp://localhost")}))
