"""TensorFlow Serving's protocol: ``rest``, and its twin ``grpc``.

A model over a table is a signature of named inputs, each of shape [-1] (or [-1, 1]): ``serving_default``. Where all
inputs are numbers of one type, a single input called ``inputs`` of shape [-1, inputs] is taken for all of them, in the
signature's order. Classifiers have a signature ``classification`` beside it, and models of one number ``regression``.
A model that no registry has numbered is version 0. Labels are the registry's aliases.
"""

from modelyard.wires.tfserving.rest import TensorFlowServingWire

__all__ = ["TensorFlowServingWire"]
