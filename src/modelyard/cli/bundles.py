"""inspect, verify and export: what is in a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, command
from modelyard.cli.package import converted
from modelyard.cli.references import REFERENCE, trusted
from modelyard.cli.registry import flat, measured

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.registry import Version


@command(
    "inspect",
    examples="""
    modelyard inspect churn@production
    modelyard inspect churn.zip
    modelyard inspect model.pkl          # what it would import
    modelyard inspect model.onnx
    """,
)
@click.argument("ref", type=REFERENCE)
def inspect(ref: str) -> Answer:
    """Show what a bundle or a model file holds; runs nothing.

    REF is a registered version, a bundle (folder or file), or a model file.
    """
    from modelyard import api

    path = Path(ref).expanduser()
    if path.is_file() and path.suffix != ".zip":
        return _model_file(path)
    bundle, version = api.open_bundle(ref)
    return Answer(_facts(bundle, version), lambda: _show(bundle, version))


def _model_file(path: Path) -> Answer:
    """What a model file is; read without running anything that is in it."""
    from modelyard import plugins
    from modelyard.bundle.formats import recognise
    from modelyard.bundle.manifest import digest_of
    from modelyard.cli.trust import look_answer

    kind = recognise(path)
    if kind == "pickle":
        return look_answer(path)
    told: dict[str, Any] = {"file": str(path), "kind": kind, "digest": digest_of(path)}
    if kind != "skops":  # reading skops would load what is in it
        runtime = plugins.find("runtimes", kind)
        facts = runtime.describe(runtime.read(path))
        told |= {
            "task": facts.task,
            "model": facts.kind,
            "inputs": facts.feature_names or facts.feature_count,
            "classes": facts.classes,
        }
    return Answer(told, lambda: screen.pairs(list(told.items())))


def _facts(bundle: Bundle, version: Version | None) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "digest": bundle.digest,
        "version": version,
        "manifest": manifest,
        "golden_rows": bundle.golden()[0].rows,
        "provenance": bundle.provenance,
        "report": _report(bundle),
        "differences": [str(difference) for difference in bundle.differences()],
    }


def _show(bundle: Bundle, version: Version | None) -> None:
    manifest = bundle.manifest
    environment = manifest.environment
    locked = {d.name: d.version for d in environment.distributions if d.role != "required"}
    screen.pairs(
        [
            ("version", version.ref if version else None),
            ("aliases", version.aliases if version else None),
            ("digest", bundle.digest),
            ("format", manifest.format),
            ("task", manifest.task),
            ("runtime", manifest.model.runtime),
            ("served as", converted(manifest.conversion)),
            ("golden rows", bundle.golden()[0].rows),
            ("python", f"{environment.python} on {environment.platform} {environment.machine}"),
            ("locked", locked),
            ("differs here", [str(difference) for difference in bundle.differences()]),
            ("metrics", measured(manifest.metrics)),
            ("provenance", flat(bundle.provenance)),
            ("report", _report(bundle) or (bundle.report and "inside; `modelyard export` to a folder takes it out")),
        ]
    )
    rows = [(side, f.name, f.dtype, f.shape, f.nullable, _seen(f)) for side, f in _fields(bundle)]
    screen.say()
    screen.table(("", "name", "type", "shape", "nullable", "seen"), rows)
    screen.say()
    screen.table(("file", "bytes", "digest"), [(n, e.size, e.digest) for n, e in manifest.files.items()])


def _report(bundle: Bundle) -> Path | None:
    """The report where it can be opened: that of a one-file bundle is unpacked only as long as the command runs."""
    return bundle.report if bundle.folder == bundle.path else None


def _fields(bundle: Bundle) -> list[tuple[str, Any]]:
    signature = bundle.signature
    return [*(("in", f) for f in signature.inputs), *(("out", f) for f in signature.outputs)]


def _seen(field: Any) -> str:
    if field.categories:
        return ", ".join(field.categories[:6]) + (f", … ({len(field.categories)})" if len(field.categories) > 6 else "")
    if field.minimum is not None and field.maximum is not None:
        return f"{field.minimum:.6g} to {field.maximum:.6g}"
    return ""


@command(
    "verify",
    examples="""
    modelyard verify churn@production
    modelyard verify churn.zip --trust publisher.pub
    """,
)
@click.argument("ref", type=REFERENCE)
@trusted
def verify(ref: str, trust: tuple[str, ...]) -> Answer:
    """Check a bundle's digests and reproduce its golden rows."""
    from modelyard import api

    bundle, version = api.open_bundle(ref)
    bundle.check_golden(bundle.load(trust=api.trusting(trust)))
    rows = bundle.golden()[0].rows
    name = version.ref if version else ref
    data = {"ref": name, "digest": bundle.digest, "files": len(bundle.manifest.files), "golden_rows": rows, "ok": True}
    return Answer(
        data,
        lambda: screen.say(
            f"{name} is whole: {len(bundle.manifest.files)} files have their digests, "
            f"{rows} golden rows are reproduced\n{bundle.digest}"
        ),
    )


@command(
    "export",
    examples="""
    modelyard export churn:4 churn.zip           # one file, to be registered elsewhere
    modelyard export churn:4 bundle/             # a folder
    modelyard export churn.zip bundle/           # from one form to the other
    """,
)
@click.argument("ref", type=REFERENCE)
@click.argument("target", type=click.Path(path_type=Path))
def export(ref: str, target: Path) -> Answer:
    """Write a bundle as a folder or as one file.

    One file where TARGET ends with .zip, else a folder. `modelyard register` takes both. The digest stays the same.
    """
    import shutil

    from modelyard import api
    from modelyard.bundle import Bundle
    from modelyard.errors import Conflict

    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise Conflict(f"it is there already: {target}", hint="choose another name")
    bundle, _ = api.open_bundle(ref)
    if target.suffix == ".zip":
        bundle.write_file(target)
    else:
        shutil.copytree(bundle.folder, target, dirs_exist_ok=True)
    written = Bundle.open(target)
    return Answer(
        {"path": str(target), "digest": written.digest},
        lambda: screen.say(f"written: {target}\n{written.digest}"),
    )
