"""A stream of ``tritonclient`` that stays open: one line of stdin, one request; one line of stdout, the answer.

Run by its own interpreter: ``stream_client.py PORT [KEY]``.
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as grpc_client

client = grpc_client.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")
answers = queue.Queue()
client.start_stream(
    callback=lambda result, error: answers.put(error or result),
    headers={"authorization": f"Bearer {sys.argv[2]}"} if sys.argv[2:] else None,
)
inputs = [grpc_client.InferInput(name, [1], "FP64") for name in ("x1", "x2")]
for each in inputs:
    each.set_data_from_numpy(np.array([1.0]))
for _ in sys.stdin:
    client.async_stream_infer("line", inputs)
    answer = answers.get(timeout=60)
    print(answer.message() if isinstance(answer, Exception) else answer.as_numpy("prediction")[0].round(3), flush=True)
client.stop_stream()
