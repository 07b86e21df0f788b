"""The gateway's own pages: health, keys and documents. What nobody knows is answered here too, with 404 or 405."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import fastapi_offline
import orjson
from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.staticfiles import StaticFiles

from gateway.account_pages import add_account_pages
from gateway.documents import MergedDocument
from gateway.keys import KeyRing
from shared.app import READING, Readiness, add_health_routes, install_error_handlers
from shared.errors import UnavailableError

TITLE = "GoWebbo"
DOCUMENT_PATH = "/openapi.json"
STATIC_PATH = "/docs/static"
JWKS_MAX_AGE_S = 300
_STATIC_FILES = Path(fastapi_offline.__file__).parent / "static"
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)


def create_pages(
    *,
    ready: Readiness,
    keys: KeyRing,
    document: MergedDocument,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """The application behind the front."""
    pages = FastAPI(
        title=TITLE, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, redirect_slashes=False
    )
    install_error_handlers(pages)
    add_health_routes(pages, ready)

    @pages.api_route("/.well-known/jwks.json", methods=READING)
    async def jwks() -> Response:
        """The keys that access tokens are signed with, as the gateway knows them."""
        if keys.document is None:
            raise UnavailableError(retry_after_s=2)
        headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE_S}"}
        return Response(orjson.dumps(keys.document), media_type="application/json", headers=headers)

    @pages.api_route(DOCUMENT_PATH, methods=READING)
    async def openapi() -> Response:
        """The services' documents, merged into one."""
        return Response(await document.json(), media_type="application/json")

    @pages.api_route("/docs", methods=READING)
    async def docs() -> Response:
        """The document to read and try, without anything from the internet."""
        page = get_swagger_ui_html(
            openapi_url=DOCUMENT_PATH,
            title=TITLE,
            swagger_js_url=f"{STATIC_PATH}/swagger-ui-bundle.js",
            swagger_css_url=f"{STATIC_PATH}/swagger-ui.css",
            swagger_favicon_url=f"{STATIC_PATH}/favicon.png",
        )
        page.headers["Content-Security-Policy"] = _CONTENT_POLICY
        return page

    pages.mount(STATIC_PATH, StaticFiles(directory=_STATIC_FILES))
    add_account_pages(pages)
    return pages
