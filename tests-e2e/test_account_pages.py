"""The pages that mails link to, used in a real browser by somebody who has a keyboard and no mouse."""

import json
import re
from collections.abc import Callable
from email.message import EmailMessage
from urllib.parse import urlsplit

import pytest
from e2e_api import Api, Practice, assert_error
from e2e_browser import PHONE_PX, Browser, Page, origin
from e2e_stack import EmbeddedStack, Mailbox, eventually

FORGOT = "/api/v1/auth/password/forgot"
INVITATIONS = "/api/v1/staff/invitations"
NEW_PASSWORD = "another-good-password"
USED = "This link was used already, or it is too old."
NAMES = ("verify", "reset", "join")
UNKNOWN_TOKEN = "A" * 43
LEAST_CONTRAST = 4.5
"""WCAG 2.2, 1.4.3."""

CONTRASTS = """
(() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    const [R, G, B] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return a === 0 ? null : 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const ground = (one) => light(getComputedStyle(one).backgroundColor) ?? ground(one.parentElement);
  const hasText = (one) => [...one.childNodes].some((part) => part.nodeType === Node.TEXT_NODE && part.data.trim());
  const written = [...document.querySelectorAll("body *")].filter(
    (one) => one.checkVisibility() && (one.matches("input") || hasText(one)));
  return Object.fromEntries(written.map((one) => {
    const [low, high] = [light(getComputedStyle(one).color), ground(one)].sort((a, b) => a - b);
    return [one.textContent || one.id, (high + 0.05) / (low + 0.05)];
  }));
})()
"""
"""The contrast of every text that is seen, and of what is typed."""


@pytest.fixture
def joined(new_practice: Callable[..., Practice]) -> Practice:
    """A practice for one test, since its password changes."""
    return new_practice()


@pytest.fixture
def link(mailbox: Mailbox) -> Callable[[str, str], str]:
    """Waits for the mail to an address that links to an account page; returns the link."""

    def wait(address: str, name: str) -> str:
        def found() -> list[str]:
            return [link for one in mailbox.sent_to(address) for link in _links(one) if f"/account/{name}#" in link]

        return eventually(found, f"a mail to {address} that links to {name}", timeout_s=15)[-1]

    return wait


def _links(message: EmailMessage) -> list[str]:
    part = message.get_body(("plain",))
    assert part is not None
    return re.findall(r"https?://\S+", part.get_content())


def _assert_quiet(page: Page, api: Api, link: str) -> None:
    """The page spoke to the gateway alone and complained of nothing; the token went out in a body, if at all."""
    token = urlsplit(link).fragment
    assert page.complaints == []
    assert {origin(request["url"]) for request in page.requests} == {api.url}
    for request in page.requests:
        assert token not in request["url"]
        assert token not in json.dumps(request["headers"])
        assert not [value for name, value in request["headers"].items() if name.lower() == "referer" and value]
    passed = [entry["url"] for entry in page.call("Page.getNavigationHistory")["entries"]]
    assert not [url for url in passed if token in url], "Back leads to the token"
    assert page.run("location.hash") == ""
    assert page.run("document.cookie + localStorage.length + sessionStorage.length") == "00"


def _value(page: Page, field: str) -> str:
    return str(page.run(f"document.getElementById('{field}').value"))


def test_the_welcome_mails_link_confirms_the_address_once(
    stack: EmbeddedStack, api: Api, joined: Practice, page: Page, link: Callable[[str, str], str]
) -> None:
    address = link(joined.email, "verify")
    mails = str(stack.status()["mailbox"]["url"])
    page.open(mails)
    [path] = page.run(
        f"[...document.querySelectorAll('tr')].filter((row) => row.innerText.includes('{joined.email}'))"
        ".map((row) => row.querySelector('a').pathname)"
    )
    page.open(mails + path)
    page.requests.clear()
    page.follow("/account/verify#")
    assert page.focused() == "Confirm"
    page.press("Enter")
    page.wait_for_text("your e-mail address is confirmed")
    page.open(address)  # in the same tab, where only the fragment is another one
    page.wait_for_text("One click")
    page.press("Enter")
    page.wait_for_text(USED)
    assert page.focused() == ""
    assert "Confirm\n" not in page.text(), "there is nothing left to press"
    [first, second] = [request for request in page.requests if request["method"] == "POST"]
    assert first["url"] == second["url"] == f"{api.url}/api/v1/auth/email/verify"
    assert json.loads(first["postData"]) == {"token": urlsplit(address).fragment}
    page.requests[:] = [request for request in page.requests if origin(request["url"]) != mails]
    _assert_quiet(page, api, address)


def test_a_forgotten_password_is_set_anew_by_keyboard_alone(
    api: Api, joined: Practice, browser: Browser, page: Page, link: Callable[[str, str], str]
) -> None:
    assert api.post(FORGOT, json={"email": joined.email}).status_code == 200
    address = link(joined.email, "reset")
    page.open(address)
    _fill_in(page, "password1", "password1")
    page.wait_for_text("This is one of the commonest passwords")
    assert [_value(page, "password"), _value(page, "repeat")] == ["password1", "password1"], "what was typed is kept"
    assert page.focused().startswith("New password"), "the keyboard is where something must be done"
    described = page.run(
        "document.getElementById(document.activeElement.getAttribute('aria-describedby')).innerText"
        " + document.activeElement.getAttribute('aria-invalid')"
    )
    assert described.startswith("This is one of the commonest passwords")
    assert described.endswith("true")

    _fill_in(page, NEW_PASSWORD, "something-else")
    page.wait_for_text("The passwords differ.")
    assert "commonest" not in page.text()
    assert page.focused() == "The same again"
    page.type(NEW_PASSWORD)
    page.press("Enter")
    page.wait_for_text("Your password is set.")
    assert _value(page, "password") == "", "a password stays no longer than needed"
    assert_error(api.log_in(joined.email), 401, "wrong-credentials")
    assert api.log_in(joined.email, NEW_PASSWORD).status_code == 200
    _assert_quiet(page, api, address)

    with browser.page() as later:
        later.open(address)
        _fill_in(later, "a-third-good-password", "a-third-good-password")
        later.wait_for_text(USED)
        assert later.complaints == []
    assert api.log_in(joined.email, NEW_PASSWORD).status_code == 200


def _fill_in(page: Page, password: str, repeated: str) -> None:
    assert page.focused().startswith("New password")
    page.type(password)
    page.press("Tab")
    assert page.focused() == "The same again"
    page.type(repeated)
    page.press("Enter")


def test_an_invitation_is_accepted_with_a_name_and_a_password(
    api: Api, practice: Practice, page: Page, link: Callable[[str, str], str]
) -> None:
    email = f"invited-{practice.id[-8:]}@example.com"
    assert practice.call("POST", INVITATIONS, json={"email": email, "role": "clinician"}).status_code == 201
    address = link(email, "join")
    page.open(address)
    assert page.focused() == "Your name"
    page.type("Dr. Ada Lovelace")
    page.press("Tab")
    page.type("short")
    page.press("Enter")
    page.wait_for_text("Please correct what is marked.")
    assert page.focused().startswith("Password")
    assert _value(page, "name") == "Dr. Ada Lovelace"
    page.type(NEW_PASSWORD)
    page.press("Enter")
    page.wait_for_text("Welcome!")
    assert api.log_in(email, NEW_PASSWORD).status_code == 200
    [person] = [one for one in practice.get("/api/v1/staff").json()["result"]["data"] if one["email"] == email]
    assert (person["name"], person["role"]) == ("Dr. Ada Lovelace", "clinician")
    _assert_quiet(page, api, address)


def test_who_has_an_account_joins_with_its_password(
    api: Api, practice: Practice, joined: Practice, page: Page, link: Callable[[str, str], str]
) -> None:
    assert practice.call("POST", INVITATIONS, json={"email": joined.email, "role": "auditor"}).status_code == 201
    page.open(link(joined.email, "join"))
    page.type("Ada")
    page.press("Tab")
    page.type("not-the-password")
    page.press("Enter")
    refused = assert_error(api.log_in(joined.email, "not-the-password"), 401, "wrong-credentials")
    page.wait_for_text(refused["detail"])
    assert page.focused().startswith("Password")
    page.type(joined.password)
    page.press("Enter")
    page.wait_for_text("Welcome!")
    assert page.complaints == []


@pytest.mark.parametrize("name", NAMES)
def test_a_link_without_its_code_says_so_and_asks_for_it(api: Api, page: Page, name: str) -> None:
    page.open(f"{api.url}/account/{name}")
    page.wait_for_text("code is missing.")
    assert page.focused() == "Code from the mail"
    assert page.complaints == []


def test_the_code_of_a_mail_can_be_typed(
    api: Api, joined: Practice, page: Page, link: Callable[[str, str], str]
) -> None:
    page.open(f"{api.url}/account/verify")
    page.type(UNKNOWN_TOKEN)
    page.press("Enter")
    page.wait_for_text("This code is wrong, was used already, or is too old.")
    assert page.focused() == "Code from the mail"
    page.type(f" {urlsplit(link(joined.email, 'verify')).fragment} ")
    page.press("Enter")
    page.wait_for_text("your e-mail address is confirmed")


@pytest.mark.parametrize("name", NAMES)
def test_a_gateway_that_does_not_answer_loses_nothing_that_was_typed(api: Api, page: Page, name: str) -> None:
    page.open(f"{api.url}/account/{name}#{UNKNOWN_TOKEN}")
    page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    for field in page.run("[...document.querySelectorAll('input:not(#token)')].map((one) => one.id)"):
        page.run(f"document.getElementById('{field}').focus()")
        page.type(NEW_PASSWORD)
    page.press("Enter")
    page.wait_for_text("That did not work just now. Please try again.")
    assert _value(page, "token") == UNKNOWN_TOKEN
    assert page.run("[...document.querySelectorAll('input')].every((one) => one.value)")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_tells_a_screen_reader_what_it_is(api: Api, page: Page, name: str) -> None:
    for fragment in ("", f"#{UNKNOWN_TOKEN}"):
        page.open("about:blank")
        page.open(f"{api.url}/account/{name}{fragment}")
        assert page.run("document.documentElement.lang") == "en"
        assert page.run("document.title").endswith("· GoWebbo")
        assert page.run("document.querySelectorAll('h1').length") == 1
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]
        ]
        assert [role for role, _ in roles].count("status") == 1
        assert {"main", "heading", "button"} <= {role for role, _ in roles}
        assert all(name for role, name in roles if role in {"textbox", "button", "heading"}), roles


@pytest.mark.parametrize("name", NAMES)
def test_tab_goes_through_the_fields_to_the_button(api: Api, page: Page, name: str) -> None:
    page.open(f"{api.url}/account/{name}#{UNKNOWN_TOKEN}")
    labels = page.run(
        "[...document.querySelectorAll('input:not(#token), button')]"
        ".map((one) => one.labels[0]?.innerText ?? one.innerText)"
    )
    passed = []
    for _ in labels:
        passed.append(page.focused())
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
        page.press("Tab")
    assert passed == labels


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_state_is_readable_on_the_narrowest_phone(api: Api, browser: Browser, name: str, *, dark: bool) -> None:
    with browser.page(width=PHONE_PX, height=640, dark=dark) as phone:
        phone.open(f"{api.url}/account/{name}")
        _assert_readable(phone, dark=dark)
        phone.open(f"{api.url}/account/{name}#{UNKNOWN_TOKEN}")
        _assert_readable(phone, dark=dark)
        phone.run("mark([...form.querySelectorAll('input')].map(({ id }) => ({ field: id, message: 'W'.repeat(99) })))")
        _assert_readable(phone, dark=dark)
        for kind in ("done", "problem"):
            phone.run(f"end('{kind}', form.dataset.spent)")
            _assert_readable(phone, dark=dark)


def _assert_readable(page: Page, *, dark: bool) -> None:
    page.assert_fits()
    contrasts: dict[str, float] = page.run(CONTRASTS)
    assert contrasts
    assert {text: ratio for text, ratio in contrasts.items() if ratio < LEAST_CONTRAST} == {}
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground)[:3])) < 64) == dark
