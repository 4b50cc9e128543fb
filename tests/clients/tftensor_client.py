"""TensorFlow's own tensors in Seldon's JSON: ``tftensor_client.py PORT``, by an interpreter that has TensorFlow.

As ``seldon_core`` does where TensorFlow is installed: ``make_tensor_proto``, protobuf's JSON, ``make_ndarray``. The
model gives the probabilities of two rows.
"""

import json
import sys
import urllib.request

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

EXPECTED = [[0.37754067, 0.62245933], [0.92414182, 0.07585818]]
ROWS = np.array([[1.0, 0.5], [-2.0, 0.5]])


def ask(rows, **names):
    told = json.loads(json_format.MessageToJson(tf.make_tensor_proto(rows)))
    body = json.dumps({"data": {"tftensor": told, **names}}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/api/v1.0/predictions", body) as answer:
        data = json.load(answer)["data"]
    assert data["names"] == ["no", "yes"]
    return tf.make_ndarray(json_format.ParseDict(data["tftensor"], tf.make_tensor_proto(0.0)))


for dtype in ("float64", "float32"):
    assert np.allclose(ask(ROWS.astype(dtype)), EXPECTED)
    assert np.allclose(ask(ROWS[:, ::-1].astype(dtype), names=["x2", "x1"]), EXPECTED)
    assert np.allclose(ask(ROWS[:1].astype(dtype)), EXPECTED[:1])
assert ask(np.array([[1, 2]], dtype="int64")).shape == (1, 2)
