"""A FastAPI application with a model inside. Run it: python examples/fastapi_app/app.py"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fastapi

import modelyard

HERE = Path(__file__).parent
HOME = Path(os.environ.get("MODELYARD_HOME", HERE / "home"))


def train() -> None:
    """Train the model on the table of flowers, where that was not done yet."""
    if "flowers" not in modelyard.models(registry=HOME):
        print("Training the model: the first time this takes some seconds.", flush=True)
        table = HERE.parent / "flowers.csv"
        modelyard.train(table, "kind", name="flowers", candidates=["linear"], alias="production", registry=HOME)


def create_app(**options: Any) -> fastapi.FastAPI:
    app = fastapi.FastAPI(title="A shop for flowers")
    models = modelyard.fastapi.router("flowers@production", registry=str(HOME), **options)
    app.include_router(models, prefix="/ml")

    @app.get("/")
    def index() -> str:
        return "A shop for flowers. Which kind one is: POST /ml/predict"

    return app


if __name__ == "__main__":
    import uvicorn

    train()
    uvicorn.run(create_app(), port=int(os.environ.get("PORT", "8080")))
