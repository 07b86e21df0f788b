"""The API's documents and the caught mail, as a real browser shows them."""

import contextlib
import socket
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from e2e_api import Api
from e2e_browser import PHONE_PX, Browser, Page, origin
from e2e_stack import EmbeddedStack

_METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    """A window as narrow as the narrowest phone."""
    with browser.page(width=PHONE_PX, height=640) as one:
        yield one


def test_the_documents_page_lists_every_operation_from_the_gateway_alone(api: Api, page: Page) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    operations = {(method.upper(), path) for path, item in paths.items() for method in item if method in _METHODS}

    def listed() -> set[tuple[str, str]]:
        rows = page.run(
            "[...document.querySelectorAll('.opblock')].map((row) => [row.querySelector('.opblock-summary-method')"
            ".innerText, row.querySelector('[data-path]').dataset.path])"
        )
        return {(method, path) for method, path in rows}

    page.open(f"{api.url}/docs")
    page.wait(lambda: listed() == operations, "every operation is listed")
    page.run("document.querySelector('.opblock-summary-control').click()")
    page.wait_for_text("Try it out")
    assert page.complaints == []
    assert {origin(request["url"]) for request in page.requests if not request["url"].startswith("data:")} == {api.url}


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """A listener that nobody may send anything to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


HOSTILE = """
<h1>A hostile mail</h1>
<script>top.document.title = "taken"; document.body.append("it ran"); fetch("{url}")</script>
<img src="x" onerror="document.body.append('it ran'); fetch('{url}')"><img src="{url}">
<link rel="stylesheet" href="{url}"><style>@import "{url}"; h1 {{ background: url("{url}") }}</style>
<iframe src="{url}"></iframe><iframe src="javascript:top.document.title = 'taken'"></iframe>
<object data="{url}"></object><video src="{url}" autoplay></video><svg onload="top.location = '{url}'"></svg>
<meta http-equiv="refresh" content="0; url={url}"><base href="{url}" target="_top">
<form action="{url}"><input autofocus onfocus="document.body.append('it ran')"></form>
"""


def test_a_hostile_mail_is_shown_and_neither_acts_nor_sends(
    stack: EmbeddedStack, phone: Page, elsewhere: socket.socket
) -> None:
    url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
    script = "<script>document.title = 'taken'</script>"
    mail = EmailMessage()
    mail["From"], mail["To"] = "mallory@example.com", f"{'x' * 60}@example.com"
    mail["Subject"] = f"Hostile {script}"
    mail.set_content(f'{script} https://example.com/"onclick=alert(1) javascript:alert(1)')
    mail.add_alternative(HOSTILE.format(url=url), subtype="html")
    mails = str(stack.status()["mailbox"]["url"])
    (stack.home / "mailbox" / "new" / "9999999999.hostile").write_bytes(bytes(mail))

    phone.open(mails)
    phone.assert_fits()
    phone.follow("Hostile")
    phone.assert_fits()
    assert phone.run("document.title") == f"Hostile {script}"
    assert script in phone.text()
    assert phone.run("[...document.querySelectorAll('pre a')].map((one) => one.href)") == ["https://example.com/"]
    assert phone.run("document.scripts.length + document.querySelectorAll('[onclick]').length") == 0

    phone.wait_for_complaint("Blocked script execution")
    phone.wait_for_complaint("Refused to execute the redirect")
    shown = phone.text_with_frames()
    assert "A hostile mail" in shown
    assert "it ran" not in shown
    assert phone.run("[document.title, location.pathname]") == [f"Hostile {script}", "/mail/9999999999.hostile"]
    assert _heard_at(elsewhere) == b""


def _heard_at(listener: socket.socket) -> bytes:
    """What was sent. Chromium opens a connection for a frame before it asks the policy, and then sends nothing."""
    heard = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(BlockingIOError):
                connection.setblocking(False)
                heard += connection.recv(1 << 16)
    return heard
