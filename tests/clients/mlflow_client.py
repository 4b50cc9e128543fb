"""MLflow's own client of its scoring server against the port that is given; one line of JSON tells what it got."""

import json
import sys

import numpy as np
import pandas as pd
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

host, port = "127.0.0.1", int(sys.argv[1])
client = ScoringServerClient(host, port)
client.wait_server_ready(timeout=60)
frame = pd.DataFrame({"x1": [1.0, -2.0, 3.0], "x2": [0.5, 0.5, 5.0]})


def refused(data: object) -> str:
    try:
        client.invoke(data)
    except Exception as error:
        return str(error)
    return "taken"


told = {
    "version": client.get_version(),
    "frame": client.invoke(frame).get_predictions().values.ravel().tolist(),
    "reordered": client.invoke(frame.assign(note="a")[["note", "x2", "x1"]]).get_predictions().values.ravel().tolist(),
    "matrix": client.invoke(frame.to_numpy()).get_predictions().values.ravel().tolist(),
    "list": client.invoke(frame.to_dict(orient="records")).get_predictions().values.ravel().tolist(),
    "params": client.invoke(frame, params={"unknown": 1}).get_predictions().values.ravel().tolist(),
    "text": client.invoke(json.dumps({"instances": [[1, 2]]}))["predictions"],
    "csv": requests.post(
        f"http://{host}:{port}/invocations", data=frame.to_csv(), headers={"content-type": "text/csv"}
    ).json()["predictions"],
    "missing": refused(frame[["x1"]]),
    "gap": refused(frame.assign(x1=np.nan)),
    "many": len(client.invoke(pd.concat([frame] * 1000)).get_predictions()),
}
print(json.dumps(told))
