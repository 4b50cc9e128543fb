"""XGBoost's native files, JSON and UBJSON, read and checked before XGBoost sees them.

XGBoost trusts them: a truncated UBJSON file, or a tree whose nodes point outside it, ends the process (3.2: a
segmentation fault). So the structure is walked here first, and every index is compared with what it points into.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.schema import Array

#: Types of numbers in UBJSON, all big-endian.
NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
DEEPEST = 64


def is_native(path: Path) -> bool:
    """Whether a file starts as XGBoost's JSON or UBJSON does."""
    with path.open("rb") as file:
        start = file.read(512)
    return start[:1] == b"{" and (b'"learner"' in start or b"\x07learner" in start)


def check(data: bytes) -> None:
    """Raises ValueError saying what is wrong with the file."""
    try:
        model = json.loads(data) if data[1:2] != b"L" else _Reader(data).read()
        learner = model["learner"]
        gradient = learner["gradient_booster"]
        kept = gradient.get("gbtree", gradient).get("model", {})
        features = int(learner["learner_model_param"]["num_feature"])
        trees = kept.get("trees", [])
        if len(trees) != len(kept.get("tree_info", [])):
            raise ValueError("trees and their targets differ in number")
        for number, tree in enumerate(trees):
            _check_tree(number, tree, features)
    except (KeyError, TypeError, AttributeError, IndexError, struct.error, RecursionError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error


def _check_tree(number: int, tree: Any, features: int) -> None:
    nodes = int(tree["tree_param"]["num_nodes"])

    def within(name: str, low: int, high: int, count: int = nodes) -> None:
        values = np.asarray(tree[name], dtype="int64")
        if len(values) != count or (count and (values.min() < low or values.max() >= high)):
            raise ValueError(f"tree {number} is damaged: {name}")

    if nodes < 1:
        raise ValueError(f"tree {number} has no nodes")
    within("left_children", -1, nodes)
    within("right_children", -1, nodes)
    within("default_left", 0, 2)
    within("split_indices", 0, 2**31)
    inner = _walked(number, np.asarray(tree["left_children"]), np.asarray(tree["right_children"]))
    # Nodes that were pruned stay in the file with an index of their own; no walk comes there.
    if inner.any() and np.asarray(tree["split_indices"])[inner].max() >= features:
        raise ValueError(f"tree {number} is damaged: split_indices")
    if len(tree["split_conditions"]) < nodes and int(tree["tree_param"].get("size_leaf_vector", 1)) <= 1:
        raise ValueError(f"tree {number} is damaged: split_conditions")
    sets = len(tree.get("categories_nodes", []))
    if sets:
        count = len(tree["categories"])
        within("categories_nodes", 0, nodes, sets)
        within("categories_segments", 0, count + 1, sets)
        within("categories_sizes", 0, count + 1, sets)
        if (np.asarray(tree["categories_segments"]) + np.asarray(tree["categories_sizes"])).max() > count:
            raise ValueError(f"tree {number} is damaged: categories")


def _walked(number: int, left: Array, right: Array) -> Array:
    """(nodes,) true for the inner nodes that a walk from the root may meet; each must be met in one way only."""
    seen, inner = np.zeros(len(left), bool), np.zeros(len(left), bool)
    level = np.array([0])
    while len(level):
        if seen[level].any() or len(np.unique(level)) != len(level):
            raise ValueError(f"tree {number} is damaged: its nodes are no tree")
        seen[level] = True
        level = level[left[level] >= 0]
        inner[level] = True
        if (right[level] < 0).any():
            raise ValueError(f"tree {number} is damaged: a node has one child")
        level = np.concatenate([left[level], right[level]])
    return inner


class _Reader:
    """The part of UBJSON that XGBoost writes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self) -> Any:
        value = self._value(self._take(1).decode("latin-1"), 0)
        if self._at != len(self._data):
            raise ValueError("there is something after its end")
        return value

    def _take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise ValueError("it is truncated")
        self._at += count
        return self._data[self._at - count : self._at]

    def _mark(self) -> str:
        return self._take(1).decode("latin-1")

    def _count(self) -> int:
        """A length: a whole number with its type before it."""
        mark = self._mark()
        if mark not in "iUIlL":
            raise ValueError(f"it is damaged at byte {self._at}: a length of type {mark!r}")
        return int(self._number(mark))

    def _number(self, mark: str) -> Any:
        kind = np.dtype(NUMBERS[mark])
        return np.frombuffer(self._take(kind.itemsize), kind)[0]

    def _text(self) -> str:
        return self._take(self._count()).decode("utf-8", "replace")

    def _value(self, mark: str, depth: int) -> Any:
        if depth > DEEPEST:
            raise ValueError("it is nested too deep")
        if mark == "{":
            return self._object(depth)
        if mark == "[":
            return self._array(depth)
        if mark == "S":
            return self._text()
        if mark in NUMBERS:
            return self._number(mark).item()
        if mark in "TFZN":
            return {"T": True, "F": False}.get(mark)
        raise ValueError(f"it is damaged at byte {self._at}: a value of type {mark!r}")

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._data[self._at : self._at + 1] != b"}":
            key = self._text()
            found[key] = self._value(self._mark(), depth + 1)
        self._at += 1
        return found

    def _array(self, depth: int) -> Any:
        start = self._data[self._at : self._at + 1]
        if start == b"$":
            self._at += 1
            mark = self._mark()
            self._expect("#")
            kind = np.dtype(NUMBERS[mark])
            return np.frombuffer(self._take(self._count() * kind.itemsize), kind)
        if start == b"#":
            self._at += 1
            return [self._value(self._mark(), depth + 1) for _ in range(self._count())]
        found = []
        while (mark := self._mark()) != "]":
            found.append(self._value(mark, depth + 1))
        return found

    def _expect(self, mark: str) -> None:
        if self._mark() != mark:
            raise ValueError(f"it is damaged at byte {self._at}: no {mark!r}")
