"""The conformance kit with gRPC, by an interpreter that has grpcio: ``conformance_grpc.py PORT SITE``.

SITE is where the kit and what it needs are installed; they go last, so that the interpreter's own libraries win.
"""

import sys

sys.path.extend(sys.argv[2:])

from modelyard.conformance import check

address = f"127.0.0.1:{sys.argv[1]}"
report = check(f"http://{address}", "oip", model="m", grpc=address)
asked = [each for each in report.outcomes if each.id.startswith("grpc-")]
for each in report.broken:
    print(each.id, each.reason)
assert len(asked) >= 25 and all(each.outcome == "pass" for each in asked), asked
