"""A Django project, in one file, with a model inside. Run it: python examples/django_app/app.py"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

import modelyard

HERE = Path(__file__).parent
HOME = Path(os.environ.get("MODELYARD_HOME", HERE / "home"))

# What is in a project's urls.py.
urlpatterns: list[Any] = []


def train() -> None:
    """Train the model on the table of flowers, where that was not done yet."""
    if "flowers" not in modelyard.models(registry=HOME):
        print("Training the model: the first time this takes some seconds.", flush=True)
        table = HERE.parent / "flowers.csv"
        modelyard.train(table, "kind", name="flowers", candidates=["linear"], alias="production", registry=HOME)


def index(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("A shop for flowers. Which kind one is: POST /ml/predict")


def create_app(**options: Any) -> Any:
    # What is in a project's settings.py.
    settings.configure(
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.environ.get("SECRET_KEY", "only for this example"),
        ALLOWED_HOSTS=["localhost", "127.0.0.1"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    )
    django.setup()
    models = modelyard.django.urls("flowers@production", registry=str(HOME), **options)
    urlpatterns.extend([path("", index), path("ml/", include(models))])
    return get_wsgi_application()


if __name__ == "__main__":
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    train()
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8080")), create_app(), server_class=Server) as server:
        print(f"Serving on http://127.0.0.1:{server.server_port}", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
