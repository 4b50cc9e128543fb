"""The Python face: each verb as one function. The command line calls these and prints what they return.

``ref`` below is ``churn`` (its production version, else the newest), ``churn:4``, ``churn@production``,
``churn@sha256:…``, or the path of a bundle. ``trust`` names digests (``sha256:…``) and public-key files whose
pickles may be loaded; the setting ``trust`` is always added.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard import settings
from modelyard.errors import Conflict, InvalidInput, NotFound, Problem, RemoteFailed
from modelyard.interfaces import Predict
from modelyard.schema import Array, Columns, Signature

if TYPE_CHECKING:
    from modelyard.bundle import Bundle, Trust
    from modelyard.monitoring.accuracy import Report as Accuracy
    from modelyard.monitoring.joining import Turn
    from modelyard.monitoring.report import Report
    from modelyard.monitoring.sending import Sent
    from modelyard.registry import Change, Registry, Version
    from modelyard.registry.decisions import Decision
    from modelyard.registry.plans import Rollout
    from modelyard.registry.routes import Pin, Route
    from modelyard.rollouts.guard import Verdict
    from modelyard.scoring import Scored
    from modelyard.serving.server import Server
    from modelyard.training import Result


class Model:
    """A loaded model, answering as the server would.

    ``rows`` may be a data frame, a mapping of columns, a list of records, one record, or a matrix whose columns are
    the inputs in the signature's order.
    """

    def __init__(self, bundle: Bundle, predict: Predict, version: Version | None = None) -> None:
        self.bundle = bundle
        self.version = version
        self._predict = predict

    @property
    def signature(self) -> Signature:
        return self.bundle.signature

    @property
    def digest(self) -> str:
        return self.bundle.digest

    def columns(self, rows: Any) -> Columns:
        """Every output for ``rows``. Raises InvalidInput where they do not fit the signature."""
        arrays = self._arrays(rows)
        names = [field.name for field in self.signature.inputs]
        extra = [name for name in arrays if name not in names]
        if extra and set(names) <= set(arrays):
            chosen = f"take the model's columns: rows[{names}]"
            hint = chosen if hasattr(rows, "iloc") else f"leave out {', '.join(extra)}"
            raise InvalidInput.of(
                [Problem(name, "no such column, the model does not take it", "one") for name in extra], hint=hint
            )
        return self._predict(self.signature.input_layout.from_arrays(arrays))

    def _arrays(self, rows: Any) -> dict[str, Array]:
        from modelyard.tables import arrays_of

        inputs = self.signature.inputs
        if len(inputs) == 1 and inputs[0].shape and isinstance(rows, np.ndarray) and not rows.dtype.names:
            return {inputs[0].name: rows}  # images, sequences: the array is the column
        return arrays_of([rows] if is_record(rows) else rows, [field.name for field in inputs])

    def predict(self, rows: Any) -> Any:
        """The predictions, one per row; a single value for one record."""
        values = self.columns(rows)[self.signature.outputs[0].name]
        return values.tolist()[0] if is_record(rows) else values

    def predict_proba(self, rows: Any) -> Array:
        """The probabilities, shape (rows, classes), classes in the order of ``classes``.

        Raises InvalidInput for a model that has none.
        """
        columns = self.columns(rows)
        if "probabilities" not in columns:
            raise InvalidInput(f"this model has no probabilities: its outputs are {', '.join(columns)}")
        return columns["probabilities"]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The class labels as text, or None for a model without probabilities."""
        for field in self.signature.outputs:
            if field.name == "probabilities":
                return field.categories
        return None

    def __repr__(self) -> str:
        name = f"{self.version.model}:{self.version.number}" if self.version else str(self.bundle.folder)
        return f"<Model {name} {self.digest[:19]}>"


def is_record(rows: Any) -> bool:
    """Whether ``rows`` is one record: a mapping of single values rather than of columns."""
    return isinstance(rows, Mapping) and not any(isinstance(v, (list, tuple, np.ndarray)) for v in rows.values())


@dataclass(frozen=True)
class Packaged:
    """A bundle and, where a name was given, the version it was registered as."""

    bundle: Bundle
    version: Version | None


@dataclass(frozen=True)
class Trained(Packaged):
    """What training made. ``result`` holds the metrics, the leaderboard, the notes and the fitted pipeline."""

    result: Result

    @property
    def metrics(self) -> dict[str, Any]:
        return self.bundle.manifest.metrics


def open_registry(where: Any = None) -> Registry:
    """The registry at ``where`` (a folder, a postgresql:// URL, None for the settings'), or ``where`` itself."""
    from modelyard.registry import Registry

    return where if isinstance(where, Registry) else Registry.open(where)


def trusting(names: Iterable[str] = ()) -> Trust:
    """The given names and those of the settings."""
    from modelyard.bundle import Trust

    return Trust.of(*names, *settings.get("trust"))


def open_bundle(ref: str | Path, registry: Any = None) -> tuple[Bundle, Version | None]:
    """The bundle that ``ref`` means, verified, and its version where it came from a registry."""
    from modelyard.bundle import Bundle

    if is_path(ref, registry):
        return Bundle.open(ref), None
    registry = open_registry(registry)
    version = registry.resolve(str(ref))
    return registry.fetch(version), version


def is_path(ref: str | Path, registry: Any = None) -> bool:
    """Whether a reference is a bundle's path rather than a registered name; see ``modelyard.bundle.places``."""
    from modelyard.bundle import places

    return places.is_path(ref, lambda: open_registry(registry).models())


@contextmanager
def _room(out: str | Path | None) -> Iterator[Path]:
    """Where a bundle is built: ``out`` if it is to be kept, else a folder that goes away."""
    if out is not None:
        yield Path(out).expanduser()
        return
    try:
        room = tempfile.TemporaryDirectory(prefix="modelyard-")
    except OSError as error:
        where = f" in {Path(error.filename).parent}" if error.filename else ""
        raise RemoteFailed(
            f"cannot make a temporary folder{where}: {error.strerror or error}",
            hint="set TMPDIR to a folder that you may write to",
        ) from error
    with room as folder:
        yield Path(folder) / "bundle"


def _enter(bundle: Bundle, name: str | None, alias: str | None, tags: Any, why: str, registry: Any) -> Packaged:
    """Register ``bundle`` where there is a name; the bundle returned outlives the room it was built in."""
    if name is None:
        return Packaged(bundle, None)
    registry = open_registry(registry)
    version = registry.register(bundle, name, alias=alias, tags=tags, why=why)
    return Packaged(registry.fetch(version), version)


def _named(name: str | None, out: str | Path | None) -> None:
    if name is None and out is None:
        raise InvalidInput("nowhere to put the bundle", hint="give a name to register it under, or a folder")
    if name is not None:
        from modelyard.registry import check_name

        check_name(name)


def train(
    data: Any,
    target: str,
    *,
    name: str | None = None,
    out: str | Path | None = None,
    alias: str | None = None,
    tags: Mapping[str, str] | None = None,
    why: str = "",
    registry: Any = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[..., None] | None = None,
    **options: Any,
) -> Trained:
    """Train on a table (a CSV or Parquet path, or a data frame), package the winner, register it as ``name``.

    ``options`` are those of ``modelyard.training.train``: task, seed, folds, candidates, metric, exclude ...
    Raises InvalidInput for a table or target that cannot be learnt from, with what to do.
    """
    from modelyard import training
    from modelyard.bundle import pack

    _named(name, out)
    result = training.train(data, target, name=name or "", progress=progress, **options)
    with _room(out) as folder:
        bundle = pack(
            result.model,
            folder,
            sample=result.sample,
            reference=result.reference,
            metrics=result.metrics,
            provenance={**result.provenance, **(provenance or {})},
            report=result.report_html,
        )
        entered = _enter(bundle, name, alias, tags, why, registry)
    return Trained(entered.bundle, entered.version, result)


def package(
    model: Any,
    *,
    sample: Any,
    target: str | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    trust: Iterable[str] = (),
    signature: Signature | None = None,
    alias: str | None = None,
    tags: Mapping[str, str] | None = None,
    why: str = "",
    registry: Any = None,
    convert: bool = True,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Packaged:
    """Package a model that somebody already has and register it as ``name``.

    ``model`` is a live object or the path of a pickle, joblib, skops, ONNX, XGBoost or LightGBM file; ``sample``
    a table of its inputs (path, data frame, columns, records), at least some tens of rows if there are as many.
    ``target`` names a column of the sample to leave out. Raises Refused for a file that is not trusted.
    """
    from modelyard.bundle import pack, read_model
    from modelyard.bundle.manifest import digest_of
    from modelyard.tables import arrays_of, read_table

    _named(name, out)
    facts: dict[str, Any] = dict(provenance or {})
    if isinstance(model, (str, Path)):
        path = Path(model).expanduser()
        model = read_model(path, trusting(trust))
        facts = {"source": path.name, "source_digest": digest_of(path), **facts}
    if isinstance(sample, (str, Path)):
        sample = read_table(sample)
    arrays = arrays_of(sample)
    if target is not None:
        if target not in arrays:
            raise InvalidInput.at("target", f"one of {', '.join(arrays)}", target)
        del arrays[target]
    with _room(out) as folder:
        bundle = pack(
            model,
            folder,
            sample=arrays,
            signature=signature,
            provenance=facts,
            convert=convert,
            progress=progress,
        )
        return _enter(bundle, name, alias, tags, why, registry)


def register(
    bundle: str | Path | Bundle,
    name: str,
    *,
    alias: str | None = None,
    tags: Mapping[str, str] | None = None,
    why: str = "",
    registry: Any = None,
) -> Version:
    """Register a bundle (a folder, a one-file bundle) as the next version of ``name``.

    The same bundle again under the same name is the same version.
    """
    from modelyard.bundle import Bundle

    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    return open_registry(registry).register(opened, name, alias=alias, tags=tags, why=why)


def load(ref: str | Path, *, trust: Iterable[str] = (), registry: Any = None, device: str = "cpu") -> Model:
    """The model that ``ref`` means, ready to predict. Raises NotFound, BadBundle, Refused."""
    bundle, version = open_bundle(ref, registry)
    return Model(bundle, bundle.load(trust=trusting(trust), device=device), version)


def predict(ref: str | Path, input: str | Path, output: str | Path, **options: Any) -> Scored:
    """Score a file that may be larger than memory; see ``modelyard.scoring.score`` for the options.

    The job of a registered version is told in its registry, as far as that may be written.
    """
    from modelyard import scoring
    from modelyard.jobs import Told

    trust = trusting(options.pop("trust", ()))
    registry = options.pop("registry", None)
    bundle, version = open_bundle(ref, registry)
    source, target = Path(input), Path(output)
    if version is None:
        return scoring.score(bundle, source, target, trust=trust, **options)
    places = str(source.absolute()), str(target.absolute())
    with Told(open_registry(registry), version.model, version.number, *places) as told:
        progress = told.progress(options.pop("progress", None))
        scored = scoring.score(bundle, source, target, trust=trust, progress=progress, **options)
        told.ended(scored)
        return scored


def serve(*refs: str | Path, block: bool = True, trust: Iterable[str] = (), **options: Any) -> Server | None:
    """Serve models over HTTP; see ``modelyard.serving.server.Server`` for the options.

    Blocks until it is stopped; with ``block=False`` it returns the running server, whose ``stop()`` ends it.
    """
    from modelyard.companion import accompany
    from modelyard.scraping import Watched
    from modelyard.serving.server import Server

    named = [str(ref) for ref in refs]
    options["record"] = _is_recorded(named, options)
    begun, told = threading.Event(), options.pop("on_ready", None)

    def ready(server: Server) -> None:
        begun.set()
        if told is not None:
            told(server)

    watched = Watched(options.get("registry"))
    server = Server(named, trust=trusting(trust), on_ready=ready, watched=watched, **options)
    accompany(server.application, options.get("registry"), begun)
    if block:
        server.run()
        return None
    server.start()
    return server


def _is_recorded(refs: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether a server notes what it predicts: what the setting says, if somebody chose it. Else versions of a registry
    are recorded. A bundle by its path has no number, no history and no alias that records could be looked up by, and is
    mostly served in containers, whose disk goes with them.
    """
    from modelyard.bundle.places import is_path

    chosen = settings.Chosen({name: options.get(name) for name in ("record", "control")})
    if chosen.is_set("record"):
        return bool(chosen.record)

    def is_named(ref: str) -> bool:
        return "=" not in ref and not is_path(ref, lambda: open_registry(options.get("registry")).models())

    return bool(chosen.control) or any(map(is_named, refs))


def sign(ref: str, private_key: str | Path, *, registry: Any = None) -> Version:
    """Sign a registered version: the signature is kept beside it, and those who trust the public key can load it.

    Raises NotFound, and Conflict where another key has signed it: each version holds one signature.
    """
    import shutil

    from modelyard.bundle import Bundle, signing

    registry = open_registry(registry)
    version = registry.resolve(ref)
    bundle = registry.fetch(version)
    with _room(None) as folder:
        shutil.copytree(bundle.folder, folder)  # the cache holds what is registered, and that only
        signature = signing.sign(folder, Path(private_key).expanduser())
        there = signing.find_signature(bundle.folder)
        if there is not None and there.read_bytes() != signature.read_bytes():
            raise Conflict(
                f"{version.ref} has a signature already, made with another key",
                hint=f"modelyard export {version.ref} FOLDER, then sign and hand on that",
            )
        entered: Version = registry.register(Bundle.open(folder), version.model, why="signed")
    return entered


def monitor(
    name: str,
    *,
    version: str | int | None = None,
    hours: float = 24.0,
    multivariate: bool = False,
    registry: Any = None,
) -> Report:
    """What is known of a model's health in the last hours: findings, features beside the reference, latency, budgets.

    ``multivariate``: ask a classifier as well whether all recorded inputs together changed.
    """
    from modelyard.monitoring.report import report

    opened = open_registry(registry)
    made = report(opened, name, None if version is None else str(version), hours=hours)
    if multivariate:
        from modelyard.monitoring.multivariate import compare
        from modelyard.recording.places import Places

        newest = max(made.arms, key=lambda arm: arm.until, default=None)
        places = Places.chosen()
        if newest is None or places is None:
            made.multivariate = {
                "lacking": "no inputs are recorded: the setting records is off, or there is no traffic"
            }
        else:
            made.multivariate = compare(places.segments, name, newest.version, hours)
    return made


def metrics(*, registry: Any = None) -> str:
    """What is watched in a registry, as Prometheus' text: drift, quality, alerts, rollouts. Raises RemoteFailed.

    A server that serves from the registry tells it with its own metrics; this is for where none is scraped.
    """
    from modelyard.scraping import tell

    return tell(open_registry(registry)).text()


def try_sinks(sink: str | None = None, *, registry: Any = None) -> list[dict[str, Any]]:
    """Send a test alert to every sink, or to one, from this process; says what went wrong, "" for nothing."""
    from modelyard.monitoring import sinks

    return sinks.try_sinks(open_registry(registry), sink)


def send_labels(
    model: str,
    data: Any,
    *,
    id: str = "prediction_id",
    label: str = "label",
    time: str | None = None,
    encoding: str | None = None,
    rejects: str | Path | None = None,
    registry: Any = None,
    progress: Callable[..., None] | None = None,
) -> Sent:
    """Keep what turned out to be true of predictions. ``data``: a CSV or Parquet file, or one of a JSON record a line;
    or a data frame, columns or records.

    The columns ``id``, ``label`` and, where there is one, ``time`` (when it became known) are read. The same label
    again changes nothing, another one is a correction. Rows that do not fit are set aside in ``rejects``, by default
    the file's name with ``.rejected.csv`` behind. Raises NotFound, InvalidInput for a file without these columns.
    """
    from modelyard.monitoring import sending

    opened = open_registry(registry)
    take = sending.Here(opened.labels, model, sending.truth_of(opened, model))
    if not isinstance(data, (str, Path)):
        from modelyard.tables import arrays_of

        return sending.send(model, sending.batches_of(arrays_of(data), id, label, time), take, _path(rejects))
    path = Path(data).expanduser()
    file = sending.LabelFile(path, id, label, time, encoding)
    set_aside = _path(rejects) or path.with_name(path.name + ".rejected.csv")
    tell = progress or (lambda *_: None)
    return sending.send(model, file.batches(), take, set_aside, lambda: tell(*file.done))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


def join_labels(
    models: Iterable[str] | None = None, *, records: str | Path | None = None, registry: Any = None
) -> dict[str, Turn]:
    """Join labels with the predictions that were recorded on this machine now, rather than wait for ``watch``.

    Returns what was done for each model. Raises Conflict where another process does it, NotFound where nothing is
    recorded.
    """
    from modelyard.monitoring.labelling import Labelling
    from modelyard.recording.places import Places
    from modelyard.rollouts.truths import Truths

    places = Places.chosen(records)
    if places is None or not places.segments.is_dir():
        where = f" in {places.folder}" if places is not None else ": the setting records is off"
        raise NotFound(f"no predictions are recorded{where}", hint="modelyard records status")
    joiner = Labelling(open_registry(registry), places, sample=settings.get("record_sample"), tell=[Truths()])
    try:
        return joiner.turn(None if models is None else list(models))
    finally:
        joiner.close()


def accuracy(model: str, *, version: str | int | None = None, registry: Any = None, **rules: Any) -> Accuracy:
    """How good a model's predictions turned out to be, by labels that came, of each version or of one.

    ``rules`` are those of ``modelyard.monitoring.rules.AccuracyRules`` (``hours``, ``days``, ``share`` ...) in place of
    the ones in force. Raises NotFound.
    """
    import msgspec

    from modelyard.monitoring.accuracy import report
    from modelyard.monitoring.rules import load as load_rules

    opened = open_registry(registry)
    ruled = msgspec.structs.replace(load_rules(opened.database, model).accuracy, **rules)
    return report(opened, model, None if version is None else str(version), rules=ruled)


def models(*, registry: Any = None) -> list[str]:
    """The registered names."""
    return open_registry(registry).models()


def versions(name: str, *, registry: Any = None) -> list[Version]:
    """The versions of a model, oldest first."""
    return open_registry(registry).versions(name)


def promote(
    name: str,
    number: int,
    *,
    alias: str = "production",
    why: str = "",
    expect: int | None = None,
    registry: Any = None,
) -> Change:
    """Move ``alias`` to version ``number``. ``expect`` makes it a compare-and-swap: Conflict if it moved."""
    return open_registry(registry).promote(name, number, alias=alias, why=why, expect=expect)


def rollback(name: str, *, alias: str = "production", why: str = "", registry: Any = None) -> Change:
    """Move ``alias`` back to the version that was live before, or take back what its rollout brought. Conflict where
    there was nothing before.
    """
    return open_registry(registry).rollback(name, alias=alias, why=why)


def history(name: str, *, at: str | None = None, registry: Any = None) -> list[Change]:
    """Every change of a model, oldest first; ``at`` (ISO 8601) leaves out what came later."""
    return open_registry(registry).history(name, at=at)


def tag(ref: str, tags: Mapping[str, str | None], *, registry: Any = None) -> Version:
    """Set tags of a version; None removes one."""
    opened = open_registry(registry)
    for key, value in tags.items():
        if value is None:
            opened.untag(ref, key)
        else:
            opened.tag(ref, key, value)
    return opened.resolve(ref)


def delete(ref: str, *, why: str = "", force: bool = False, registry: Any = None) -> None:
    """Delete a version. Refused while an alias points to it."""
    open_registry(registry).delete(ref, why=why, force=force)


@dataclass(frozen=True)
class Standing:
    """How a rollout stands: itself, what the guard says now (None where it has ended), every decision about it, and who
    decides ("" where nobody does).
    """

    rollout: Rollout
    verdict: Verdict | None
    decisions: list[Decision]
    decider: str


def start_rollout(model: str, to: int, *, registry: Any = None, **options: Any) -> tuple[Rollout, list[str]]:
    """Begin to roll out version ``to`` of ``model``; also what was decided for the plan, in sentences.

    ``options`` are those of ``modelyard.rollouts.plan.draft``: canary, ramp, shadow, guards, alpha ...
    Raises Refused for a version with another signature, Conflict where a rollout is under way already.
    """
    from modelyard.rollouts.plan import draft

    registry = open_registry(registry)
    made, notes = draft(registry, model, to, **options)
    return registry.rollouts.start(made), notes


def find_rollout(model: str, *, alias: str = "production", registry: Any = None) -> Standing:
    """The newest rollout of an alias. Raises NotFound where it never had one."""
    from modelyard.registry.leases import CONTROL
    from modelyard.rollouts import guard

    registry = open_registry(registry)
    rollout = registry.rollouts.latest(model, alias)
    verdict = None if rollout.ended else guard.explain(rollout)
    return Standing(rollout, verdict, registry.rollouts.decisions(rollout.id), registry.holder(CONTROL))


def abort_rollout(model: str, *, alias: str = "production", why: str = "", registry: Any = None) -> Decision:
    """End a rollout: the version before answers everything."""
    return open_registry(registry).rollouts.abort(model, alias, why=why)


def pause_rollout(model: str, *, alias: str = "production", why: str = "", registry: Any = None) -> Decision:
    """Let a rollout stay at its share. Harm still ends it."""
    return open_registry(registry).rollouts.pause(model, alias, why=why)


def resume_rollout(model: str, *, alias: str = "production", why: str = "", registry: Any = None) -> Decision:
    """Let a rollout go on after a pause."""
    return open_registry(registry).rollouts.resume(model, alias, why=why)


def end_rollout(model: str, *, alias: str = "production", why: str = "", registry: Any = None) -> Decision:
    """Watch a promoted candidate no longer: it stays."""
    return open_registry(registry).rollouts.end(model, alias, why=why)


def find_route(model: str, *, alias: str = "production", registry: Any = None) -> Route | None:
    """The route in force of an alias; None where the alias alone decides."""
    return open_registry(registry).routes.present(model, alias)


def set_route(
    model: str,
    shares: Mapping[int, float],
    *,
    shadows: Mapping[int, float] | None = None,
    key: str = "request",
    pins: Iterable[Pin] = (),
    alias: str = "production",
    why: str = "",
    registry: Any = None,
) -> Route:
    """Part the requests of an alias among versions: ``shares`` of them, which add up to 1, and copies for ``shadows``.

    An arm is called after its version: ``v4``. Raises InvalidInput, NotFound, Conflict where a rollout is under way.
    """
    from modelyard.registry.routes import Arm, Route, check, check_columns

    arms = [Arm(name=f"v{version}", version=version, weight=share) for version, share in shares.items()]
    arms += [
        Arm(name=f"v{version}-shadow", version=version, weight=share, mode="shadow")
        for version, share in (shadows or {}).items()
    ]
    route = check(Route(model=model, alias=alias, arms=tuple(arms), key=key, salt=model, pins=tuple(pins)))
    registry = open_registry(registry)
    if any(each.startswith("column:") for each in (key, *(pin.key for pin in route.pins))):
        signature = registry.fetch(registry.resolve(f"{model}:{route.arms[0].version}")).signature
        check_columns(key, route.pins, signature)
    made: Route = registry.routes.set(route, why=why)
    return made


def clear_route(model: str, *, alias: str = "production", why: str = "", registry: Any = None) -> bool:
    """Let the alias alone decide again; False where it does already."""
    return open_registry(registry).routes.clear(model, alias, why=why)
