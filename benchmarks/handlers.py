"""The usual handlers to compare with: a pickled model, a data frame made for each request. And the floor: a constant.

python benchmarks/handlers.py bare PORT
python benchmarks/handlers.py fastapi PORT MODEL.pkl
gunicorn --chdir benchmarks "handlers:flask_app('MODEL.pkl')"
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path
from typing import Any


def bare(port: int) -> None:
    """``asyncio.Protocol`` on llhttp and uvloop with a constant answer: the least that a Python server costs."""
    import httptools
    import uvloop

    text = b'{"prediction":[9.5]}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text)

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.parser = httptools.HttpRequestParser(self)

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_message_complete(self) -> None:
            self.transport.write(answer)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


def fastapi(port: int, path: str) -> None:
    """FastAPI as its tutorials show it."""
    import pandas as pd
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel, create_model

    model = pickle.loads(Path(path).read_bytes())
    names = list(model.feature_names_in_)
    fields: dict[str, Any] = dict.fromkeys(names, (float, ...))
    row = create_model("Row", **fields)

    class Rows(BaseModel):
        rows: list[list[float]]

    app = FastAPI()

    async def predict(data) -> dict[str, Any]:  # type: ignore[no-untyped-def]
        return {"prediction": model.predict(pd.DataFrame([data.model_dump()])).tolist()}

    async def predict_rows(data) -> dict[str, Any]:  # type: ignore[no-untyped-def]
        return {"prediction": model.predict(pd.DataFrame(data.rows, columns=names)).tolist()}

    predict.__annotations__["data"], predict_rows.__annotations__["data"] = row, Rows
    app.post("/predict")(predict)
    app.post("/predict_rows")(predict_rows)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def flask_app(path: str) -> Any:
    """Flask, to be served by gunicorn."""
    import pandas as pd
    from flask import Flask, jsonify, request

    model = pickle.loads(Path(path).read_bytes())
    names = list(model.feature_names_in_)
    app = Flask("handlers")

    @app.post("/predict")
    def predict() -> Any:
        return jsonify(prediction=model.predict(pd.DataFrame([request.get_json()])).tolist())

    @app.post("/predict_rows")
    def predict_rows() -> Any:
        frame = pd.DataFrame(request.get_json()["rows"], columns=names)
        return jsonify(prediction=model.predict(frame).tolist())

    return app


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        bare(int(sys.argv[2]))
    else:
        fastapi(int(sys.argv[2]), sys.argv[3])
