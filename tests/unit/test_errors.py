import pickle

from modelyard import errors
from modelyard.errors import InvalidInput, MissingDependency, ModelyardError, NotFound, Problem


def every_error() -> list[type[ModelyardError]]:
    return [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, ModelyardError)]


def test_codes_are_different_words() -> None:
    codes = [kind.code for kind in every_error()]
    assert len(set(codes)) == len(codes) == 15
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


def test_what_no_text_can_hold_is_told_all_the_same() -> None:
    error = InvalidInput.at("a\ud800", "a text", "'\ud800' \u00e9", hint="not \ud800")
    for text in (error.message, error.hint, *(str(problem) for problem in error.problems)):
        assert "\\ud800" in text and text.encode()
    assert "\u00e9" in error.message


def test_errors_cross_processes_whole() -> None:
    for kind in every_error():
        again = pickle.loads(pickle.dumps(kind("it broke: 3", hint="mend it", value=3)))
        assert type(again) is kind
        assert (again.message, again.hint, again.details) == ("it broke: 3", "mend it", {"value": 3})
    several = InvalidInput.of([Problem("a", "x", "y"), Problem("b", "x", "z")], hint="h")
    assert pickle.loads(pickle.dumps(several)).problems == several.problems


def test_messages_teach() -> None:
    assert str(InvalidInput.at("age", "a number", "'old'")) == "age: expected a number, got 'old'"
    several = InvalidInput.of([Problem("a", "x", "y"), Problem("b", "x", "z")])
    assert several.message == "a: expected x, got y (and 1 more)"
    cut = InvalidInput.of([Problem("a", "x", "y")] * errors.MOST_PROBLEMS)
    assert cut.message == "a: expected x, got y (and at least 9 more)"
    missing = NotFound.among("model", "chrun", ["churn", "fraud"])
    assert str(missing) == "no such model: chrun (known: churn, fraud)\nhint: did you mean churn?"
    assert NotFound.among("model", "x", []).message == "no such model: x (there are none)"
    assert MissingDependency.extra("pyarrow", "tables", "reading CSV").hint == "pip install 'modelyard[tables]'"
