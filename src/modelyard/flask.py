"""Modelyard inside a Flask application.

app.register_blueprint(modelyard.flask.blueprint("churn@production"), url_prefix="/ml")

modelyard.flask.mount(app, "/ml", "churn@production")     # the same, past Flask's own routing: faster
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from modelyard import wsgi
from modelyard.errors import MissingDependency
from modelyard.serving.wsgi import WsgiApp, headers_of, reader_of

if TYPE_CHECKING:
    from flask import Blueprint, Flask

#: OPTIONS is Flask's own, so that what answers it for the whole application (CORS) does here too.
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def blueprint(
    *refs: str, name: str = "modelyard", wait: bool = True, trust: Iterable[str] = (), **options: Any
) -> Blueprint:
    """A blueprint that answers every path below its prefix as a server of ``refs`` would.

    It goes through Flask's own routing and hooks (sessions, ``before_request`` ...). Options as for
    ``modelyard.serve``.
    """
    try:
        import flask
    except ImportError as error:
        raise MissingDependency.extra("flask", "flask", "modelyard.flask") from error
    served = wsgi.app(*refs, wait=wait, trust=trust, **options)
    made = flask.Blueprint(name, __name__)

    def view(path: str = "") -> Any:
        environ = flask.request.environ
        status, headers, body = served.answer(
            environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), headers_of(environ), reader_of(environ)
        )
        return flask.Response(body, status, headers)

    for rule in ("/", "/<path:path>"):
        made.add_url_rule(rule, "answer", view, methods=_METHODS)
    made.modelyard = served  # type: ignore[attr-defined]  # for those who want to stop it
    return made


def mount(app: Flask, prefix: str, *refs: str, wait: bool = True, trust: Iterable[str] = (), **options: Any) -> WsgiApp:
    """Serve ``refs`` below ``prefix`` in front of a Flask application: its routing and hooks see nothing of it."""
    served = wsgi.app(*refs, wait=wait, trust=trust, **options)
    app.wsgi_app = wsgi.mounted(app.wsgi_app, prefix, served)  # type: ignore[method-assign]
    return served
