"""Rules: what counts as worth telling and to whom. Settings with defaults, changed in a row of the registry.

Changes are kept as they were made, for all models (model "") or for one, and laid over the defaults when they are read,
so that defaults may improve. Only detectors can be ruled for one model; alert rules and sinks are for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from modelyard.errors import InvalidInput, NotFound
from modelyard.registry import journal, states
from modelyard.registry.database import Database, Work
from modelyard.registry.findings import SEVERITIES, Severity
from modelyard.registry.records import check_name, check_text, shown

_STATE = "rules"

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Whole = Annotated[int, msgspec.Meta(ge=1)]


class DriftRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a difference between live rows and the reference is told."""

    #: A look is closed at so many rows and seconds, or with ``few`` rows after ``patience`` hours.
    rows: Whole = 1_000
    seconds: Positive = 60.0
    few: Whole = 100
    patience: Positive = 24.0
    #: Rate of false discoveries, over features and over time.
    q: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.05
    #: What the lower bound of an effect must exceed: KS distance of numbers, excess PSI of categories, change of the
    #: share of missing values, share of texts that are new or values of the wrong type.
    ks: Share = 0.1
    psi: Positive = 0.1
    missing: Share = 0.05
    new: Share = 0.01
    #: A finding opens when so many of the last looks show it.
    enter: Annotated[int, msgspec.Meta(ge=1, le=10)] = 2
    of: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    #: Features and outputs that nobody wants to hear of.
    ignore: tuple[str, ...] = ()


class LatencyRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a change of latency is told."""

    #: One point of a time line takes so many requests and seconds.
    requests: Whole = 100
    seconds: Positive = 60.0
    #: Points that say what is usual, before anything can be found.
    baseline: Annotated[int, msgspec.Meta(ge=10, le=1_000)] = 30
    #: How much longer answers must take to matter: 0.5 is half as long again.
    slower: Positive = 0.5
    #: False alarms a month for each version and arm, at most.
    false_alarms: Annotated[float, msgspec.Meta(gt=0, le=30)] = 0.1


class BudgetRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What share of a model's requests must succeed, and in time."""

    objective: Annotated[float, msgspec.Meta(ge=0.5, lt=1)] = 0.999
    days: Annotated[int, msgspec.Meta(ge=1, le=365)] = 30
    #: Requests that take longer are slow; 0 asks for no speed.
    slow_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    fast_objective: Annotated[float, msgspec.Meta(ge=0.5, lt=1)] = 0.99


class AccuracyRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a prediction's label counts, and when a version is told to be worse than at its training."""

    #: Predictions count once this share of their labels has come, by how late labels came before; or, where it is told,
    #: after so many hours.
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.95
    hours: Annotated[float, msgspec.Meta(ge=0)] | None = None
    #: Days of predictions that are looked at.
    days: Positive = 30.0
    #: Input columns whose values part the rows into segments.
    columns: tuple[str, ...] = ()
    #: The chance that a version is ever told to be worse that is not; and how much worse matters: of shares such as
    #: accuracy in absolute terms, of losses and errors in relation to what they were.
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.01
    drop: Share = 0.01
    growth: Annotated[float, msgspec.Meta(ge=0)] = 0.05


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which findings make an alert, and which sinks are told."""

    kinds: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    least: Severity = "warning"
    sinks: tuple[str, ...] = ("log",)
    #: Whether sinks are told as well when it is over.
    closing: bool = True

    def asks_for(self, model: str, kind: str, severity: Severity) -> bool:
        grave = SEVERITIES.index(severity) >= SEVERITIES.index(self.least)
        return grave and any(k in ("*", kind) for k in self.kinds) and any(m in ("*", model) for m in self.models)


SinkKind = Literal["log", "webhook", "slack", "pagerduty", "email"]


class Sink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receiver. Secrets are named, not told: ``env:NAME`` or ``file:PATH``, read by whoever sends."""

    kind: SinkKind
    #: Of a webhook, Slack or PagerDuty; of e-mail ``smtp://host:25``, ``smtp+tls://host:587``, ``smtps://host:465``.
    url: str = ""
    #: A webhook's key of signatures, PagerDuty's routing key, the password of e-mail.
    secret: str = ""
    user: str = ""
    sender: str = ""
    to: tuple[str, ...] = ()


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them."""

    drift: DriftRules = DriftRules()
    latency: LatencyRules = LatencyRules()
    budget: BudgetRules = BudgetRules()
    accuracy: AccuracyRules = AccuracyRules()
    alerts: dict[str, AlertRule] = msgspec.field(default_factory=lambda: {"all": AlertRule()})
    sinks: dict[str, Sink] = msgspec.field(default_factory=lambda: {"log": Sink(kind="log")})
    #: Address of the console, for links in alerts; "" where there is none.
    console: str = ""


#: Sections that may be ruled for one model.
DETECTORS = ("drift", "latency", "budget", "accuracy")

DEFAULTS = Rules()


def load(database: Database, model: str = "") -> Rules:
    """The rules in force for a model."""
    kept = states.find(database, _STATE)
    return _rules(_laid([_changes(kept.get((name, ""))) for name in dict.fromkeys(("", model))]))


def load_all(database: Database) -> tuple[Rules, dict[str, Rules]]:
    """The rules for all models, and those of each model that has its own."""
    kept = {model: _changes(text) for (model, _), text in states.find(database, _STATE).items()}
    general = kept.get("", {})
    return _rules(general), {model: _rules(_laid([general, own])) for model, own in kept.items() if model}


def changes(database: Database, model: str = "") -> dict[str, Any]:
    """What was changed of the defaults, for all models or for one."""
    return _changes(states.get(database, _STATE, model))


def edit(
    database: Database, model: str = "", *, put: Mapping[str, str] | None = None, drop: Sequence[str] = (),
    why: str = "",
) -> Rules:  # fmt: skip
    """Change rules, named by their place (``drift.ks``, ``sinks.ops.url``), and return those in force then.

    ``drop`` takes changes back, also whole sections. Raises NotFound for a place that is none, InvalidInput for a value
    that does not fit, or a secret that stands there in person.
    """
    if model:
        check_name(model)
    check_text("why", why)
    with database.write() as work:
        general = _changes(states.read(work, _STATE))
        own = _changes(states.read(work, _STATE, model))
        for place in drop:
            _drop(own, place)
        for place, text in (put or {}).items():
            _put(own, place, text, model)
        made = _rules(_laid([general, own]) if model else own)
        check(made)
        _keep(work, model, own)
        told = ", ".join([*(f"{place} set" for place in put or {}), *(f"{place} as before" for place in drop)])
        journal.write(work, "rules", model, why=why, detail=told)
    return made


def check(rules: Rules) -> None:
    """Raises InvalidInput or NotFound where rules and sinks do not fit together."""
    if rules.drift.enter > rules.drift.of:
        raise InvalidInput.at("drift.enter", f"at most drift.of, {rules.drift.of}", str(rules.drift.enter))
    for name, rule in rules.alerts.items():
        check_name(name, "alert rule")
        for told in rule.sinks:
            if told not in rules.sinks:
                raise NotFound.among(f"sink of the rule {name}", told, rules.sinks)
    for name, sink in rules.sinks.items():
        check_name(name, "sink")
        place = f"sinks.{name}"
        if sink.secret and not sink.secret.startswith(("env:", "file:")):
            hint = f"put it into a variable: --set {place}.secret=env:NAME, or a file: --set {place}.secret=file:PATH"
            raise InvalidInput.at(f"{place}.secret", "env:NAME or file:PATH", "a text", hint=hint)
        if sink.kind not in ("log", "pagerduty") and not sink.url:
            raise InvalidInput.at(f"{place}.url", f"an address, as {sink.kind} needs one", "none")
        if sink.kind == "pagerduty" and not sink.secret:
            raise InvalidInput.at(f"{place}.secret", "where PagerDuty's routing key is: env:NAME or file:PATH", "none")
        if sink.kind == "email" and not (sink.sender and sink.to):
            raise InvalidInput.at(place, "a sender and to whom", "not both")


def shown_rules(rules: Rules) -> dict[str, Any]:
    """The rules as plain values fit to be shown: of addresses, which may hold secrets, no more than the host."""
    told: dict[str, Any] = msgspec.to_builtins(rules)
    for sink in told["sinks"].values():
        sink["url"] = masked(sink["url"])
    return told


def masked(url: str) -> str:
    """Of an address what does not let anybody send to it."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    host, slash, _ = rest.rpartition("@")[2].partition("/")
    return f"{scheme}://{host}{'/…' if slash else ''}"


def _laid(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if isinstance(value, Mapping) and not isinstance(made.get(name, {}), Mapping):
                raise NotFound(
                    f"no such rule: {name}.{next(iter(value), '')}", hint="modelyard monitor rules lists them"
                )
            made[name] = _laid([made.get(name, {}), value]) if isinstance(value, Mapping) else value
    return made


def _rules(changed: Mapping[str, Any]) -> Rules:
    whole = _laid([msgspec.to_builtins(DEFAULTS), changed])
    try:
        return msgspec.convert(whole, Rules, strict=False)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `")
        if "unknown field" in reason:
            name = reason.split("`")[1]
            section: Any = whole
            for step in place.rstrip("`").removeprefix("$").strip(".").split("."):
                section = section.get(step, {}) if step else section
            known = [each for each in section if each != name] or list(msgspec.to_builtins(DEFAULTS))
            raise NotFound.among("rule", name, known, hint="modelyard monitor rules lists them") from None
        for kind, words in (("`float`", "a number"), ("`int`", "a whole number"), ("`bool`", "true or false")):
            reason = reason.replace(kind, words)
        reason = reason.replace("got `str`", "got another text")
        raise InvalidInput(
            f"{place.rstrip('`').removeprefix('$.') or 'rules'}: {reason[:1].lower()}{reason[1:]}",
            hint="modelyard monitor rules shows them all",
        ) from None


def _put(changed: dict[str, Any], place: str, text: str, model: str) -> None:
    steps = place.split(".")
    if model and steps[0] not in DETECTORS:
        raise InvalidInput.at(
            place, f"for one model a rule of {', '.join(DETECTORS)}", shown(steps[0]), hint="leave the model out"
        )
    section = changed
    for step in steps[:-1]:
        section = section.setdefault(step, {})
        if not isinstance(section, dict):
            raise NotFound(f"no such rule: {place}", hint="modelyard monitor rules lists them")
    many = ("kinds", "models", "sinks", "ignore", "to", "columns")
    is_many = steps[-1] in many and len(steps) > 1
    section[steps[-1]] = [word for word in text.replace(",", " ").split() if word] if is_many else text


def _drop(changed: dict[str, Any], place: str) -> None:
    *steps, last = place.split(".")
    sections = [changed]
    for step in steps:
        below = sections[-1].get(step)
        sections.append(below if isinstance(below, dict) else {})
    if last not in sections[-1]:
        raise NotFound(f"nothing was changed at {place}", hint="modelyard monitor rules shows what was")
    del sections[-1][last]
    for step, section in zip(reversed(steps), reversed(sections[:-1]), strict=True):
        if not section[step]:
            del section[step]


def _changes(text: str | None) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(text) if text else {}
    return found


def _keep(work: Work, model: str, changed: dict[str, Any]) -> None:
    if changed:
        states.put(work, _STATE, msgspec.json.encode(changed).decode(), model)
    else:
        states.drop(work, _STATE, model)
