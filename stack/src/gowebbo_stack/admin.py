"""Asking the gateway as the platform's admin: what the operator's commands know of HTTP."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gowebbo_stack.settings import SettingsError, home_of, read_given

_TIMEOUT_S = 30.0
_PAGE_LIMIT = 1000


class CommandFailedError(RuntimeError):
    """A command could not do what it was asked; the message says why."""


@dataclass(frozen=True)
class Admin:
    """The admin's door: the gateway's address and credentials."""

    url: str
    user: str
    password: str

    def get(self, path: str, **query: str | int) -> Any:
        """Return `result` of an answer. Raises CommandFailedError for any other than success."""
        return self._ask("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Have something done and return `result`. Raises CommandFailedError; then it may have been done or not."""
        return self._ask("POST", path, body)

    def delete(self, path: str) -> Any:
        """Have something removed. Raises CommandFailedError."""
        return self._ask("DELETE", path)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        address = f"{self.url}/api/v1/admin/{path}"
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {token}"} | ({} if body is None else {"Content-Type": "application/json"})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, headers, method=method)  # noqa: S310 -- see find_admin
        try:
            with _opener(self.url).open(request, timeout=_TIMEOUT_S) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            raise CommandFailedError(_complaint(error)) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise CommandFailedError(f"The gateway at {self.url} can't be asked: {reason}") from error
        return document.get("result")

    def all(self, path: str) -> Iterator[dict[str, Any]]:
        """Return every item of a list, page by page."""
        result = self.get(path, limit=_PAGE_LIMIT)
        yield from result["data"]
        while result.get("next_cursor"):
            result = self.get(path, limit=_PAGE_LIMIT, cursor=result["next_cursor"])
            yield from result["data"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses to follow: the standard handler would carry the credentials to any other host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    host = urllib.parse.urlsplit(url).hostname
    here = [urllib.request.ProxyHandler({})] if host in {"127.0.0.1", "::1", "localhost"} else []
    return urllib.request.build_opener(_NoRedirect, *here)


def _complaint(error: urllib.error.HTTPError) -> str:
    try:
        said = json.load(error)
        message = said.get("detail") or said.get("message")
        message += "".join(f"\n  {fault['field']}: {fault['message']}" for fault in said.get("errors") or ())
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        message = None
    hint = " Are ADMIN_USER_NAME and ADMIN_PASSWORD those of this gateway?" if error.code == 401 else ""  # noqa: PLR2004
    return f"The gateway answered {error.code}: {message or error.reason}{hint}"


def find_admin(url: str | None) -> Admin:
    """Return the admin's door: options and environment first, else the embedded stack that runs here."""
    try:
        given = read_given()
    except SettingsError as error:
        raise CommandFailedError(str(error)) from error
    home = home_of(given)
    state = home.running()
    embedded = str(state["entries"]["gateway"]["url"]) if state else None
    url = url or given.get("GOWEBBO_URL") or embedded
    # The embedded stack's credentials go to no other gateway.
    secrets = json.loads(home.secrets.read_text(encoding="utf-8")) if embedded and url == embedded else {}
    if url is None:
        raise CommandFailedError(f"No stack is running on {home.path}. Name a gateway with --url or GOWEBBO_URL.")
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise CommandFailedError(f"{url} is no http:// or https:// address.")
    user, password = (given.get(name) or secrets.get(name) for name in ("ADMIN_USER_NAME", "ADMIN_PASSWORD"))
    if not user or not password:
        raise CommandFailedError("Set ADMIN_USER_NAME and ADMIN_PASSWORD to the admin's credentials.")
    return Admin(url.rstrip("/"), user, password)
