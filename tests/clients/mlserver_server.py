"""MLServer with a model of scikit-learn, in the current folder: ``mlserver_server.py PORT``."""

import asyncio
import json
import socket
import sys
from pathlib import Path

import joblib
import numpy as np
from mlserver import MLServer
from mlserver.cli.serve import load_settings
from sklearn.linear_model import LogisticRegression

rows = np.random.default_rng(0).normal(size=(60, 2))
folder = Path("models", "m")
folder.mkdir(parents=True)
joblib.dump(LogisticRegression().fit(rows, (rows[:, 0] > rows[:, 1]).astype(int)), folder / "model.joblib")
(folder / "model-settings.json").write_text(
    json.dumps(
        {
            "name": "m",
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "./model.joblib", "version": "1"},
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}],
            "outputs": [{"name": "predict", "datatype": "INT64", "shape": [-1, 1]}],
        }
    )
)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


settings = {
    "host": "127.0.0.1", "http_port": int(sys.argv[1]), "grpc_port": free_port(), "metrics_endpoint": None,
    "parallel_workers": 0, "debug": False,
}  # fmt: skip
Path("models", "settings.json").write_text(json.dumps(settings))


async def main():
    found, models = await load_settings("models")
    await MLServer(found).start(models)


asyncio.run(main())
