"""A conformance kit for inference protocols: does a server keep what clients of the protocol rely on?

    from modelyard.conformance import check

    report = check("http://127.0.0.1:8080", "oip", model="churn")
    assert report.passed, report.broken

It knows nothing of Modelyard's own server: rules are rows of data, made from the specifications and from what the
stock clients do, and are asked over a socket.
"""

from modelyard.conformance.checking import DIALECTS, check
from modelyard.conformance.report import Outcome, Report

__all__ = ["DIALECTS", "Outcome", "Report", "check"]
