import pytest

from modelyard import plugins
from modelyard.errors import NotFound


def test_built_ins_enter_by_the_door_for_everyone() -> None:
    assert {"onnx", "sklearn", "xgboost", "lightgbm"} <= set(plugins.names("runtimes"))
    assert {"native", "oip"} <= set(plugins.names("wires"))
    assert plugins.find("runtimes", "onnx").name == "onnx"


def test_a_module_path_and_an_object_will_do() -> None:
    thing = object()
    assert plugins.find("stores", thing) is thing
    assert plugins.find("runtimes", "modelyard.runtimes.onnx:OnnxRuntime").name == "onnx"


def test_unknown_names_are_told_the_known_ones() -> None:
    with pytest.raises(NotFound) as caught:
        plugins.find("wires", "natve")
    assert caught.value.hint == "did you mean native?"
    with pytest.raises(NotFound, match="no_such_module"):
        plugins.find("wires", "no_such_module:Wire")
