"""The pages that mails link to, in a real browser: with the keyboard alone, on a telephone, loading nothing else."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage

import pytest
from e2e_api import Api, Practice
from e2e_stack import Mailbox, eventually
from playwright.sync_api import Browser, Page, expect, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_LINK = re.compile(r"https?://\S+/account/\S+")
NEW_PASSWORD = "another-good-password"
PHONE = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of this machine. Where there is none, REQUIRE_BROWSER=1 fails."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        told = "needs a browser on PATH: apt-get install chromium"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(told)
        pytest.skip(told)
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=as_root)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A page, and what the browser did and said of it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    referers: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def tab_to(self, name: str) -> None:
        """Moves the focus by the keyboard until it is on the field with this id."""
        for _ in range(10):
            if self.page.evaluate("document.activeElement.id") == name:
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{name} is not reached by Tab")

    def type(self, name: str, text: str) -> None:
        self.tab_to(name)
        self.page.keyboard.type(text)

    def status(self, text: str) -> None:
        """Waits until the page says so."""
        expect(self.page.get_by_role("status")).to_have_text(re.compile(text))

    def assert_clean(self, url: str, token: str) -> None:
        """Nothing came from elsewhere, nothing was complained of, and the token is in no address."""
        assert {request.split("/account")[0].split("/api")[0] for request in self.requests} == {url}
        assert self.complaints == []
        assert not [one for one in self.requests + self.referers if token and token in one]
        assert self.page.url.endswith(("/verify", "/reset", "/join"))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens an address in a browser that knows nothing."""
    pages = []

    def open_page(address: str, **settings: object) -> Visit:
        context = browser.new_context(**settings)
        pages.append(context)
        visited = Visit(context.new_page())
        page = visited.page
        page.on("request", lambda request: visited.requests.append(request.url))
        page.on("request", lambda request: visited.referers.append(request.headers.get("referer", "")))
        page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                visited.complaints.append(said.text)
                if said.type == "error" and "the server responded with a status of 4" not in said.text
                else None
            ),
        )
        page.goto(address)
        return visited

    yield open_page
    for context in pages:
        context.close()


def link_in(message: EmailMessage, url: str) -> tuple[str, str]:
    """The mail's link at this stack's own address, and the token in it."""
    part = message.get_body(("plain",))
    assert part is not None
    found = _LINK.search(str(part.get_content()))
    assert found
    link = f"{url}/account/{found[0].split('/account/')[1]}"
    return link, link.split("#")[1]


def mail_about(mailbox: Mailbox, address: str, word: str) -> EmailMessage:
    def found() -> list[EmailMessage]:
        return [one for one in mailbox.sent_to(address) if word in str(one["Subject"]).lower()]

    return eventually(found, f"a mail about {word}", timeout_s=20)[-1]


def test_an_address_is_confirmed_once(
    api: Api, new_practice: Callable[..., Practice], mailbox: Mailbox, visit: Callable[..., Visit]
) -> None:
    practice = new_practice()
    link, token = link_in(mail_about(mailbox, practice.email, "welcome"), api.url)
    visited = visit(link)
    assert token not in visited.page.url
    visited.page.keyboard.press("Enter")  # the button has the focus
    visited.status("your e-mail address is confirmed")
    visited.assert_clean(api.url, token)
    again = visit(link)
    again.page.keyboard.press("Enter")
    again.status("no longer valid")
    again.assert_clean(api.url, token)


def test_a_forgotten_password_is_replaced_with_the_keyboard_alone(
    api: Api, new_practice: Callable[..., Practice], mailbox: Mailbox, visit: Callable[..., Visit]
) -> None:
    practice = new_practice()
    assert api.post("/api/v1/auth/password/forgot", json={"email": practice.email}).status_code == 200
    link, token = link_in(mail_about(mailbox, practice.email, "reset"), api.url)
    visited = visit(link)
    visited.type("password", "password1")
    visited.type("repeat", "password2")
    visited.page.keyboard.press("Enter")
    visited.status("The passwords differ")
    for name in ("password", "repeat"):
        visited.page.locator(f"#{name}").fill("password1")
    visited.page.keyboard.press("Enter")
    visited.status("common")
    assert visited.page.locator("#password").input_value() == "password1"
    for name in ("password", "repeat"):
        visited.page.locator(f"#{name}").fill(NEW_PASSWORD)
    visited.page.keyboard.press("Enter")
    visited.status("Your password is set")
    visited.assert_clean(api.url, token)
    assert api.log_in(practice.email, NEW_PASSWORD).status_code == 200
    assert api.log_in(practice.email, practice.password).status_code == 401


def test_an_invitation_is_accepted(
    api: Api, new_practice: Callable[..., Practice], mailbox: Mailbox, visit: Callable[..., Visit]
) -> None:
    practice = new_practice()
    invited = f"invited-{practice.email}"
    order = {"email": invited, "role": "clinician"}
    assert practice.call("POST", "/api/v1/staff/invitations", json=order).status_code == 201
    link, token = link_in(mail_about(mailbox, invited, "invit"), api.url)
    visited = visit(link)
    visited.type("name", "Dr. Ada Ümit")
    visited.type("password", NEW_PASSWORD)
    visited.page.keyboard.press("Enter")
    visited.status("Welcome")
    visited.assert_clean(api.url, token)
    assert api.log_in(invited, NEW_PASSWORD).status_code == 200


@pytest.mark.parametrize("name", ["verify", "reset", "join"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_for_everybody(api: Api, visit: Callable[..., Visit], name: str, scheme: str) -> None:
    """Without a token it asks for one; every field has a name; a telephone needs no scrolling sideways."""
    visited = visit(f"{api.url}/account/{name}", viewport=PHONE, color_scheme=scheme)
    page = visited.page
    expect(page.locator("#token")).to_be_focused()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title().endswith("GoWebbo")
    assert page.locator("h1").count() == page.get_by_role("status").count() == 1
    assert page.evaluate("[...document.querySelectorAll('input')].every(i => i.labels.length === 1)")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert ink != paper
    page.keyboard.type("not-a-token")
    for name_of_field in ("name", "password", "repeat"):
        if page.locator(f"#{name_of_field}").count():
            page.locator(f"#{name_of_field}").fill(NEW_PASSWORD)
    page.keyboard.press("Enter")
    visited.status("no longer valid|not valid|token")
    visited.assert_clean(api.url, "")


def test_the_documents_render_without_the_internet(api: Api, visit: Callable[..., Visit]) -> None:
    visited = visit(f"{api.url}/docs")
    expect(visited.page.get_by_text("/api/v1/practices/signup")).to_be_visible(timeout=20_000)
    assert {request.removeprefix(api.url).split("/")[0] for request in visited.requests} == {""}
    assert visited.complaints == []
