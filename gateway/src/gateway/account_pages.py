"""The pages that mails link to. They are plain clients of the API: a product may have its own instead.

A mail's token stands in the link's fragment, which browsers send to nobody, so no server's log and no Referer has it.
"""

from pathlib import Path

from fastapi import FastAPI, Response
from starlette.staticfiles import StaticFiles

from shared.app import READING
from shared.errors import NotFoundError

PATH = "/account"
STATIC_PATH = f"{PATH}/static"
_FILES = Path(__file__).parent / "account"
_PAGES = {name: (_FILES / f"{name}.html").read_bytes() for name in ("verify", "reset", "join")}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


def add_account_pages(pages: FastAPI) -> None:
    """Adds `/account/verify`, `/account/reset`, `/account/join` and what they load."""
    pages.mount(STATIC_PATH, StaticFiles(directory=_FILES / "static"))

    @pages.api_route(f"{PATH}/{{name}}", methods=READING)
    async def show(name: str) -> Response:
        """One of the pages."""
        if name not in _PAGES:
            raise NotFoundError
        return Response(_PAGES[name], media_type="text/html", headers=_HEADERS)
