"""The conformance kit of the Runtime seam, and a runtime that keeps its models in memory.

    @pytest.mark.parametrize("check", CHECKS)
    def test_mine(check):
        check(Case(MyRuntime(), model, sample, signature))

``check_runtime`` runs them all. Each check raises AssertionError saying what is wrong; none needs a test library.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from modelyard.errors import BadBundle, ModelFailed
from modelyard.interfaces import ModelFacts, ModelSpec, Predict, Runtime
from modelyard.schema import Array, Columns, Signature

#: Libraries that ``claims`` must not import: it is asked about things that are not of its format.
HEAVY = ("sklearn", "pandas", "scipy", "onnx", "onnxruntime", "xgboost", "lightgbm", "torch", "skops", "joblib")


@dataclass
class Case:
    """A runtime, a live model of its format, and rows for it: one array for each input of ``signature``."""

    runtime: Runtime
    model: Any
    sample: Mapping[str, Array]
    signature: Signature
    #: Largest relative difference between the live model and the saved one.
    tolerance: float = 0.0
    columns: Columns = field(init=False)

    def __post_init__(self) -> None:
        self.columns = self.signature.input_layout.from_arrays(self.sample)

    def loaded(self) -> Predict:
        """The model saved and loaded again."""
        with tempfile.TemporaryDirectory() as folder:
            options = self.runtime.save(self.model, Path(folder))
            spec = ModelSpec(runtime=self.runtime.name, options=options)
            return self.runtime.load(Path(folder), spec, self.signature)

    def check_equal(self, got: Columns, expected: Columns, what: str) -> None:
        assert got.layout.fields == self.signature.output_layout.fields, f"{what}: outputs are not the signature's"
        assert got.rows == expected.rows, f"{what}: {got.rows} rows, expected {expected.rows}"
        for name in expected:
            a, b = got[name], expected[name]
            if a.dtype == object or not self.tolerance:
                assert a.tolist() == b.tolist(), f"{what}: {name} differs"
            else:
                np.testing.assert_allclose(a, b, rtol=self.tolerance, err_msg=f"{what}: {name} differs")


def claims_its_own(case: Case) -> None:
    """It claims its models and nothing else."""
    assert isinstance(case.runtime, Runtime), "it lacks a method of the seam"
    assert case.runtime.claims(case.model), "it does not claim its own model"
    for thing in (None, 1, "text", object(), {"a": 1}, type(case.model), Path("no such file"), Path()):
        assert not case.runtime.claims(thing), f"it claims {thing!r}"


def claims_without_importing(case: Case) -> None:
    """Being asked imports no library of models."""
    kind = type(case.runtime)
    script = (
        f"import importlib, sys; runtime = importlib.import_module({kind.__module__!r}).{kind.__qualname__}()\n"
        "assert not runtime.claims(object())\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"claims() cannot be asked in a fresh process: {done.stderr.strip()}"
    assert not done.stdout.strip(), f"claims() imports {done.stdout.strip()}"


def describes_what_the_signature_says(case: Case) -> None:
    """Task, classes and number of targets agree with the outputs."""
    facts = case.runtime.describe(case.model)
    assert facts.task in ("regression", "classification", "other"), f"unknown task: {facts.task}"
    outputs = {output.name: output for output in case.signature.outputs}
    shares = outputs.get("probabilities")
    if shares is not None and facts.classes is not None:
        assert facts.has_probabilities, "it gives probabilities and says that it has none"
        assert shares.shape == (len(facts.classes),), "classes and probabilities differ in number"
    if "prediction" in outputs and facts.task != "other":
        assert outputs["prediction"].shape == ((facts.targets,) if facts.targets > 1 else ()), "wrong number of targets"


def loads_what_it_saved(case: Case) -> None:
    """The saved model answers as the live one."""
    live = case.runtime.predictor(case.model, case.signature)
    case.check_equal(case.loaded()(case.columns), live(case.columns), "saved and loaded")


def saves_equal_bytes(case: Case) -> None:
    """Saved twice, it is the same files with the same options."""
    kept = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            options = case.runtime.save(case.model, folder)
            files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
            kept.append((options, files))
    assert kept[0][1], "it writes no file"
    assert kept[0][0] == kept[1][0], "options differ from one saving to the next"
    assert kept[0][1] == kept[1][1], "bytes differ from one saving to the next"


def takes_any_number_of_rows(case: Case) -> None:
    """No row, one row and all rows at once give the same answers."""
    for predict in (case.runtime.predictor(case.model, case.signature), case.loaded()):
        assert predict(case.columns.slice(0, 0)).rows == 0, "no rows give rows"
        whole = predict(case.columns)
        single = [predict(case.columns.slice(i, i + 1)) for i in range(min(case.columns.rows, 5))]
        case.check_equal(whole.layout.concatenate(single), whole.slice(0, len(single)), "row by row")


def does_not_mind_the_order_of_columns(case: Case) -> None:
    """Columns in another order, and laid out for another signature, give the same answers."""
    predict = case.loaded()
    expected = predict(case.columns)
    turned = {name: case.sample[name] for name in reversed(list(case.sample))}
    case.check_equal(predict(case.signature.input_layout.from_arrays(turned)), expected, "columns turned round")
    other = Signature(inputs=tuple(reversed(case.signature.inputs)))
    case.check_equal(predict(other.input_layout.from_arrays(case.sample)), expected, "laid out another way")


def leaves_the_callers_rows_alone(case: Case) -> None:
    """Predicting changes nothing in what it was given, and what it gave does not change with the next call."""
    predict = case.loaded()
    before = [block.copy() for block in case.columns.blocks]
    first = predict(case.columns.slice(0, 1))
    kept = {name: first[name].tolist() for name in first}
    predict(case.columns.slice(case.columns.rows - 1, case.columns.rows))
    assert {name: first[name].tolist() for name in first} == kept, "an answer changed with the next call"
    for block, was in zip(case.columns.blocks, before, strict=True):
        assert repr(block.tolist()) == repr(was.tolist()), "the caller's rows were changed"


def predicts_in_threads(case: Case) -> None:
    """Threads that predict at once do not mix their rows."""
    predict = case.loaded()
    rows = min(case.columns.rows, 8)
    parts = [case.columns.slice(i, i + 1) for i in range(rows)]
    expected = [answer.take(np.arange(answer.rows)) for answer in (predict(part) for part in parts)]
    with ThreadPoolExecutor(4) as pool:
        for i, got in enumerate(pool.map(lambda i: predict(parts[i % rows]), range(rows * 10))):
            case.check_equal(got, expected[i % rows], "in threads")


def refuses_a_damaged_bundle(case: Case) -> None:
    """A missing or damaged file, and one outside the folder, are told as such."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "model")
        options = case.runtime.save(case.model, folder)
        spec = ModelSpec(runtime=case.runtime.name, options=options)
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            file.write_bytes(file.read_bytes()[:20])
        _check_refused(case, folder, spec, "a truncated file")
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            file.unlink()
        _check_refused(case, folder, spec, "a missing file")


def _check_refused(case: Case, folder: Path, spec: ModelSpec, what: str) -> None:
    try:
        case.runtime.load(folder, spec, case.signature)
    except BadBundle:
        return
    raise AssertionError(f"{what} was loaded")


CHECKS: tuple[Callable[[Case], None], ...] = (
    claims_its_own,
    claims_without_importing,
    describes_what_the_signature_says,
    loads_what_it_saved,
    saves_equal_bytes,
    takes_any_number_of_rows,
    does_not_mind_the_order_of_columns,
    leaves_the_callers_rows_alone,
    predicts_in_threads,
    refuses_a_damaged_bundle,
)


def check_runtime(
    runtime: Runtime, model: Any, sample: Mapping[str, Array], signature: Signature, *, tolerance: float = 0.0
) -> None:
    """Every check of the kit; raises AssertionError at the first that fails."""
    case = Case(runtime, model, sample, signature, tolerance)
    for check in CHECKS:
        check(case)


# -- the twin ----------------------------------------------------------------------------------------------------


@dataclass
class MemoryModel:
    """A model that is a function: columns in, one array for each output."""

    name: str
    function: Callable[[Columns], Mapping[str, Any]]
    facts: ModelFacts = field(default_factory=lambda: ModelFacts(task="regression", kind="memory"))


class MemoryRuntime:
    """A runtime for tests of everything around models: what it saves are names, the models stay in this process."""

    name = "memory"
    _kept: ClassVar[dict[str, MemoryModel]] = {}

    def claims(self, thing: object) -> bool:
        return isinstance(thing, MemoryModel)

    def read(self, path: Path) -> MemoryModel:
        """The model whose name the file holds. Raises BadBundle where none of that name was saved here."""
        name = path.read_text() if path.is_file() else ""
        model = self._kept.get(name)
        if model is None:
            raise BadBundle(f"no such model in memory: {name or path.name}")
        return model

    def describe(self, model: MemoryModel) -> ModelFacts:
        return model.facts

    def predictor(self, model: MemoryModel, signature: Signature) -> Predict:
        expected = signature.input_layout

        def predict(columns: Columns) -> Columns:
            if columns.layout.fields != expected.fields:
                columns = expected.from_arrays(columns)
            try:
                return signature.output_layout.from_arrays(model.function(columns))
            except Exception as error:
                raise ModelFailed(f"the model failed: {type(error).__name__}: {error}") from error

        return predict

    def save(self, model: MemoryModel, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"memory model: {model.name}"
        self._kept[name] = model
        (folder / "model.memory").write_text(name)
        return {"file": "model.memory"}

    def load(self, folder: Path, spec: ModelSpec, signature: Signature, device: str = "cpu") -> Predict:
        return self.predictor(self.read(folder / str(spec.options["file"])), signature)
