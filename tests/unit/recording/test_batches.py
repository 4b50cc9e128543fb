"""Rows as record batches: what is kept, under which policy, and what of it nobody can read back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.messages import Message
from modelyard.profile import Profile
from modelyard.recording import frames
from modelyard.recording.batches import Recipe
from modelyard.recording.capture import REASONS
from modelyard.recording.ring import RingReader
from modelyard.recording.rows import gather
from modelyard.recording.subject import Subject
from modelyard.registry.redaction import Policy
from modelyard.schema import DTYPES, Columns, Field, Layout, Signature
from recordings import SIGNATURE, Served, Shop, asked, plain, reference, some_rows


def batch_of(shop: Shop, policy: Policy | None = None, reasons: Any = None, key: bytes = b"secret") -> list[Any]:
    """What was noted, as records."""
    (path,) = shop.places.rings.glob("*.ring")
    reader = RingReader(path)
    subjects = {number: Subject(lane) for number, lane in frames.read_lanes(path).items()}
    found = gather(reader.frames(), subjects, 77)
    reader.release(reader.position, reader.rows)
    recipe = Recipe(next(iter(subjects.values())), policy, lambda: key)
    batches = [
        recipe.batch(
            rows,
            rows.subject.flags.find(rows.inputs, rows.outputs),
            np.array([REASONS.index(r) for r in reasons] if reasons else [4] * rows.rows, dtype="int8"),
        )
        for rows in found.rows
    ]
    if found.refusals:
        batches.append(recipe.refused([refusal for _, refusal in found.refusals], 77))
    assert all(batch.schema == recipe.schema for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def test_a_process_of_its_own_takes_no_pandas_along() -> None:
    pytest.importorskip("pandas")
    code = """if True:
        import sys
        from modelyard.recording.batches import arrow, load_without_pandas
        load_without_pandas()
        pa = arrow()
        assert pa.array([1.5, None]).null_count == 1
        assert pa.default_memory_pool().backend_name == "system"
        assert "pandas" not in sys.modules
        import pandas  # whoever does want it has it
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_row_has_everything_that_is_known_of_it(shop: Shop) -> None:
    sample = some_rows(3)
    sample.inputs["age"][1] = 1000
    sample.inputs["city"][1] = "Düren"
    shop.sell(
        ["a", "b"], [1, 2], sample, ["ok", "model_failed"], arms=["production/4/canary:pinned", ""], clients=["x", ""]
    )  # fmt: skip
    first, second, third = batch_of(shop, reasons=[None, "error", "error"])
    assert (first["prediction_id"], first["request_id"], first["rows"], first["batch"]) == ("a", "a", 1, 3)
    assert (second["prediction_id"], third["prediction_id"], third["request_id"]) == ("b.0", "b.1", "b")
    assert (first["alias"], first["revision"], first["arm"], first["client"]) == ("production", 4, "canary", "x")
    assert (third["alias"], third["revision"], third["arm"], third["client"]) == (None, None, None, None)
    assert (first["pinned"], third["pinned"]) == (True, None)
    assert (first["code"], third["code"], first["worker"]) == ("ok", "model_failed", 77)
    assert first["time"].tzinfo is not None
    stages = [first[f"{stage}_s"] for stage in ("decode", "queue", "predict", "encode")]
    assert all(seconds > 0 for seconds in stages)
    assert sum(stages) == pytest.approx(first["total_s"])
    assert (first["flags"], second["flags"], third["flags"]) == (None, ["age:above", "city:unseen"], None)
    assert (first["kept"], second["kept"], first["removed"], second["removed"]) == (None, "error", None, None)
    assert [first[f"in.{field.name}"] for field in SIGNATURE.inputs] == [None] * 4
    assert second["in.age"] == 1000 and second["in.city"] == "Düren"
    assert second["in.visits"] == plain(sample.inputs["visits"][1])
    for number, row in enumerate((first, second, third)):
        assert row["out.prediction"] == sample.outputs["prediction"][number]
        assert row["out.probabilities"] == plain(sample.outputs["probabilities"][number])


def test_missing_inputs_are_null_and_invalid_outputs_stay_what_they_are(shop: Shop) -> None:
    sample = some_rows(2)
    sample.inputs["income"][:] = [np.nan, 3000.0]
    sample.inputs["city"][:] = [None, "Bonn"]
    sample.outputs["probabilities"][0] = [np.nan, np.inf]
    shop.sell(["a"], [2], sample)
    first, second = batch_of(shop)
    assert (first["in.income"], first["in.city"]) == (None, None)
    assert (second["in.income"], second["in.city"]) == (3000.0, "Bonn")
    assert plain(first["out.probabilities"]) == ["nan", np.inf]


def test_a_call_that_failed_has_no_outputs(shop: Shop) -> None:
    shop.sell(["a"], codes=["model_failed"])
    (row,) = batch_of(shop)
    assert row["out.prediction"] is None and row["out.probabilities"] is None
    assert row["in.age"] is not None


def test_a_refusal_is_a_row_with_its_reason_and_what_was_sent(shop: Shop) -> None:
    error = InvalidInput.at("[0].age", "a whole number", "'old'")
    shop.book.note_refused(asked("a"), Message(b"", code="invalid_input"), error, b'{"age": "old"}')
    (row,) = batch_of(shop)
    assert (row["prediction_id"], row["code"], row["rows"], row["kept"]) == ("a", "invalid_input", 0, "error")
    assert row["reason"] == "[0].age: expected a whole number, got 'old'"
    assert row["body"] == b'{"age": "old"}'
    assert row["in.age"] is None and row["predict_s"] is None and row["total_s"] > 0


SECRETS = ("Düren", "old", "4711", "customer-9")


def test_what_a_policy_does_not_keep_is_nowhere(shop: Shop) -> None:
    policy = Policy({"age": "bucket", "income": "drop", "city": "hash", "visits": "keep"})
    sample = some_rows(2)
    sample.inputs["income"][:] = 4711.0
    sample.inputs["city"][:] = "Düren"
    shop.sell(["a", "b"], sample=sample, arms=["production/1/stable"] * 2, clients=["customer-9", "customer-9"])
    error = InvalidInput.at("[0].city", "a text", "['Düren']")
    shop.book.note_refused(asked("c", client="customer-9"), Message(b"", code="invalid_input"), error, b"Duren 4711")
    first, second, refused = batch_of(shop, policy)
    text = repr((first, second, refused))
    assert not [secret for secret in SECRETS if secret in text]
    assert first["in.income"] is None
    assert first["in.city"] == second["in.city"] and len(first["in.city"]) == 32
    assert first["in.visits"] == plain(sample.inputs["visits"][0])
    low, _, high = first["in.age"].partition(" to ")
    assert float(low) <= sample.inputs["age"][0] <= float(high)
    assert first["removed"] == ["age:bucket", "income:drop", "city:hash"]
    assert first["client"] == refused["client"] is not None
    assert (refused["reason"], refused["body"], refused["kept"]) == ("at fault: city", None, None)


def test_columns_that_a_policy_does_not_name_are_dropped(shop: Shop) -> None:
    shop.sell(["a"])
    (row,) = batch_of(shop, Policy({"age": "keep"}))
    assert row["in.age"] is not None
    assert [row[f"in.{name}"] for name in ("income", "city", "visits")] == [None] * 3
    assert row["removed"] == ["income:drop", "city:drop", "visits:drop"]


def test_hashes_differ_between_deployments(shop: Shop) -> None:
    found = []
    for key in (b"one", b"two"):
        sample = some_rows(1)
        sample.inputs["city"][:] = "Bonn"
        shop.sell(["a"], sample=sample)
        found.append(batch_of(shop, Policy({"city": "hash"}), key=key)[0]["in.city"])
    assert found[0] != found[1]


def test_buckets_say_where_a_value_lies() -> None:
    from modelyard.recording.redaction import Buckets

    fields = (Field(name="x", dtype="float64"), Field(name="c", dtype="string"))
    texts = ["a"] * 50 + [f"v{n:02}" for n in range(50)]
    profile = Profile.of({"x": np.arange(100.0), "c": np.array(texts, dtype=object)}, fields)
    numbers, words = (Buckets(part) for part in profile.inputs)
    assert numbers.of([-1.0, 0.0, 7.5, 99.0, 99.5, float("nan"), float("inf")]) == [
        "below", "0 to 5", "5 to 10", "95 to 99", "above", None, "above",
    ]  # fmt: skip
    assert words.of(["a", "v49", "new", None]) == ["a", "other", "unseen", None]


@pytest.mark.parametrize("shape", [(), (2,), (2, 0), (-1,), (2, -1, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_column_is_kept(records: Path, dtype: str, shape: tuple[int, ...]) -> None:
    field = Field(name="x", dtype=dtype, shape=shape)
    signature = Signature(inputs=(field,), outputs=(Field(name="y", dtype=dtype, shape=shape),))
    whole = (3, *(2 if size < 0 else size for size in shape))
    count = int(np.prod(whole))
    values: Any = np.arange(count) % 2
    if dtype == "string":
        values = np.array([*map(str, values), None], dtype=object)[:-1].reshape(whole)
    values = values.reshape(whole).astype(field.storage)
    shop = Shop(records, Served(signature=signature))

    def columns(layout: Layout) -> Columns:
        return Columns(layout, [values.reshape(3, 1) if not shape else values], 3)

    shop.book.note(
        [asked("a", 3)], [Message(b"")], 1.0, 2.0, columns(signature.input_layout), columns(signature.output_layout)
    )
    found = batch_of(shop, reasons=["sample", None, "sample"])
    expected = values.tolist()
    assert [row["in.x"] for row in found] == [expected[0], None, expected[2]]
    assert [row["out.y"] for row in found] == expected
    shop.close()


def test_a_profile_without_rows_changes_nothing(records: Path) -> None:
    shop = Shop(records, Served(profile=Profile()))
    shop.sell(["a"])
    assert batch_of(shop)[0]["flags"] is None
    assert batch_of(shop, Policy({"age": "bucket"})) == []
    assert reference().rows
    shop.close()
