"""The Open Inference Protocol, version 2: ``rest`` with JSON and binary tensors, and its twin ``grpc``.

Both read a request into the same tensors (``tensors``, and ``raw`` where they are bytes), write answers by the same
outputs (``outputs``) and tell the same about models (``about``).
"""

from modelyard.wires.oip.rest import OipWire

__all__ = ["OipWire"]
