"""Seldon Core's first protocol, over REST and gRPC.

A model of rows takes ``data`` (``ndarray``, ``tensor``, and ``tftensor`` of numbers in JSON) and ``jsonData`` (records,
a record, columns). Where ``names`` names inputs, they say the order of the columns; other names are passed over, as
Seldon's own servers do. The answer mirrors the kind of the request. Like Seldon's servers for classifiers, it holds the
probabilities where the model has them, with the labels as ``names``; ``jsonData`` holds every output by its name.
"""

from modelyard.wires.seldon.rest import SeldonWire

__all__ = ["SeldonWire"]
