"""The applications that ``mounts.py`` measures: each answers POST /ml/predict. ``FOLDER`` holds the model."""

import json
import os
import pickle
from collections.abc import Callable
from typing import Any

import modelyard

FOLDER = os.environ["FOLDER"]
BUNDLE = f"{FOLDER}/bundle"
QUIET = {"access_log": "off"}


def usual_model() -> Callable[[dict[str, float]], dict[str, float]]:
    import pandas

    with open(f"{FOLDER}/model.pkl", "rb") as file:  # noqa: PTH123
        model = pickle.load(file)
    return lambda row: {"prediction": float(model.predict(pandas.DataFrame([row]))[0])}


def flask_app() -> Any:
    import flask

    return flask.Flask("host")


def flask_usual() -> Any:
    import flask

    app, answer = flask_app(), usual_model()
    app.post("/ml/predict")(lambda: flask.jsonify(answer(flask.request.get_json())))
    return app


def flask_blueprint() -> Any:
    app = flask_app()
    app.register_blueprint(modelyard.flask.blueprint(BUNDLE, **QUIET), url_prefix="/ml")
    return app


def flask_mount() -> Any:
    app = flask_app()
    modelyard.flask.mount(app, "/ml", BUNDLE, **QUIET)
    return app


def flask_nothing() -> Any:
    app = flask_app()
    app.post("/ml/predict")(lambda: {"prediction": 0})
    return app


urlpatterns: list[Any] = []


def django_app() -> Any:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application

    settings.configure(
        ROOT_URLCONF=__name__, SECRET_KEY="bench", ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    )  # fmt: skip
    return get_wsgi_application()


def django_view(view: Callable[[Any], Any]) -> Any:
    app = django_app()
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    urlpatterns.append(path("ml/predict", csrf_exempt(view)))
    return app


def django_usual() -> Any:
    from django.http import JsonResponse

    answer = usual_model()
    return django_view(lambda request: JsonResponse(answer(json.loads(request.body))))


def django_urls() -> Any:
    app = django_app()
    from django.urls import include, path

    urlpatterns.append(path("ml/", include(modelyard.django.urls(BUNDLE, **QUIET))))
    return app


def django_mount() -> Any:
    return modelyard.django.mount(django_app(), "/ml", BUNDLE, **QUIET)


def django_nothing() -> Any:
    from django.http import JsonResponse

    return django_view(lambda request: JsonResponse({"prediction": 0}))


def fastapi_usual() -> Any:
    import fastapi

    app, answer = fastapi.FastAPI(), usual_model()

    @app.post("/ml/predict")
    def predict(row: dict[str, float]) -> Any:
        return answer(row)

    return app


def fastapi_usual_async() -> Any:
    import fastapi

    app, answer = fastapi.FastAPI(), usual_model()

    @app.post("/ml/predict")
    async def predict(row: dict[str, float]) -> Any:
        return answer(row)

    return app


def fastapi_router() -> Any:
    import fastapi

    app = fastapi.FastAPI()
    app.include_router(modelyard.fastapi.router(BUNDLE, **QUIET), prefix="/ml")
    return app


def fastapi_mount() -> Any:
    import fastapi

    models = modelyard.asgi.app(BUNDLE, **QUIET)
    app = fastapi.FastAPI(lifespan=models.lifespan)
    app.mount("/ml", models)
    return app


def fastapi_nothing() -> Any:
    import fastapi

    app = fastapi.FastAPI()

    @app.post("/ml/predict")
    async def predict(request: fastapi.Request) -> Any:
        return fastapi.responses.JSONResponse({"prediction": 0})

    return app


def wsgi_nothing() -> Any:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [("content-type", "application/json"), ("content-length", "16")])
        return [b'{"prediction":0}']

    return app


def asgi_nothing() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await receive()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"16")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"prediction":0}'})

    return app
