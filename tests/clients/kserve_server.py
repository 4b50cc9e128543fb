"""KServe's Python server with a custom model, 1 where x1 is larger than x2: ``kserve_server.py PORT``."""

import sys

import kserve


class Larger(kserve.Model):
    def __init__(self):
        super().__init__("m")
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": [int(row["x1"] > row["x2"]) for row in payload["instances"]]}


kserve.ModelServer(http_port=int(sys.argv[1]), enable_grpc=False).start([Larger()])
