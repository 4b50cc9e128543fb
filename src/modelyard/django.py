"""Modelyard inside a Django project.

urlpatterns = [path("ml/", include(modelyard.django.urls("churn@production")))]

application = modelyard.django.mount(get_wsgi_application(), "/ml", "churn@production")     # faster: see mount
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from modelyard import wsgi
from modelyard.errors import MissingDependency
from modelyard.serving.wsgi import headers_of


def urls(*refs: str, wait: bool = True, trust: Iterable[str] = (), **options: Any) -> list[Any]:
    """URL patterns that answer every path below their prefix as a server of ``refs`` would.

    Requests pass Django's middleware; the view asks for no CSRF token, as its callers are programs. Options as for
    ``modelyard.serve``.
    """
    try:
        from django.http import HttpRequest, HttpResponse
        from django.urls import re_path
        from django.views.decorators.csrf import csrf_exempt
    except ImportError as error:
        raise MissingDependency.extra("django", "django", "modelyard.django") from error
    served = wsgi.app(*refs, wait=wait, trust=trust, **options)

    def view(request: HttpRequest, path: str = "") -> HttpResponse:
        environ = request.META
        status, headers, body = served.answer(
            request.method or "GET", path, environ.get("QUERY_STRING", ""), headers_of(environ),
            lambda most: request.read(most + 1),
        )  # fmt: skip
        return HttpResponse(body, status=status, headers=dict(headers))

    view.modelyard = served  # type: ignore[attr-defined]  # for those who want to stop it
    return [re_path(r"^(?P<path>.*)$", csrf_exempt(view), name="modelyard")]


def mount(
    application: Callable[..., Any], prefix: str, *refs: str, wait: bool = True, trust: Iterable[str] = (),
    **options: Any,
) -> Callable[..., Any]:  # fmt: skip
    """A project's WSGI application with ``refs`` served below ``prefix`` in front of it, past Django's middleware."""
    return wsgi.mounted(application, prefix, wsgi.app(*refs, wait=wait, trust=trust, **options))
