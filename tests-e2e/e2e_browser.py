"""A real browser, driven by the DevTools protocol over a pipe: no driver, no port, no package beside it.

Chromium is nothing that pip could bring, so the one that is there is used (Firefox doesn't speak this protocol).
It resolves no name, hence whatever a page wants from elsewhere fails here as it would without a network.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from e2e_stack import eventually

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
"""`E2E_BROWSER` goes before all of them."""
HOW_TO_GET_ONE = (
    "no Chromium or Chrome here to open the pages in: install one (Debian: apt-get install chromium)"
    " or name it in E2E_BROWSER"
)
PHONE_PX = 320
"""The narrowest window in which nothing may be wider than it is: WCAG 2.2, 1.4.10."""
ANSWER_TIMEOUT_S = 30
SEEN_WITHIN_S = 10
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # 64 MB in a container
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r")}


class PageError(AssertionError):
    """The browser refused, or the page's script raised."""


def find_browser() -> str:
    """The browser's command. Without one the test is skipped; where CI=true or REQUIRE_BROWSER=1 it fails."""
    for name in filter(None, (os.environ.get("E2E_BROWSER"), *NAMES)):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI") == "true" or os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(HOW_TO_GET_ONE, pytrace=False)
    pytest.skip(HOW_TO_GET_ONE)


@contextmanager
def run_browser() -> Iterator["Browser"]:
    """A browser with a profile of its own; both are gone afterwards."""
    command = [find_browser(), *_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with (
        tempfile.TemporaryDirectory(prefix="gowebbo-browser-", ignore_cleanup_errors=True) as profile,
        # the pipe's ends are descriptors 3 and 4 by the browser's convention
        subprocess.Popen(
            ["sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null', *command, f"--user-data-dir={profile}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            yield Browser(process)
        finally:
            process.terminate()
            try:
                process.wait(ANSWER_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


class Browser:
    """Sends commands and sorts what comes back: answers to whoever asked, events to the page they are about."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout.fileno()
        self._numbers = itertools.count(1)
        self._unread = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}
        """By session: a page and the frames that the browser keeps in other processes."""

    @contextmanager
    def page(self, *, width: int = 1280, height: int = 800, dark: bool = False) -> Iterator["Page"]:
        """A new window that shares no cookie and no cache with another one."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Page.enable")
        self._listen(session)
        page.run("0")  # a navigation that overtakes the commands above would lose what is listened for
        try:
            yield page
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def send(self, method: str, session: str | None = None, **parameters: Any) -> int:
        """Sends a command and doesn't wait; returns its number."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        return number

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """What a command answers. Raises PageError."""
        number = self.send(method, session, **parameters)
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while number not in self._answers:
            self._receive(deadline)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def documents(self, page: "Page") -> list[dict[str, Any]]:
        """The root nodes of a page and of its frames."""
        sessions = [session for session, owner in self._pages.items() if owner is page]
        return [self.call("DOM.getDocument", session, depth=-1, pierce=True)["root"] for session in sessions]

    def _listen(self, session: str) -> None:
        for domain in ("Network.enable", "Runtime.enable", "Log.enable"):
            self.send(domain, session)
        self.send("Target.setAutoAttach", session, autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self.send("Runtime.runIfWaitingForDebugger", session)

    def _receive(self, deadline: float) -> None:
        ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"the browser said nothing for {ANSWER_TIMEOUT_S} s"
        received = os.read(self._from, 1 << 20)
        assert received, "the browser has ended"
        *messages, self._unread = (self._unread + received).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            elif page := self._pages.get(message.get("sessionId", "")):
                self._note(page, message)

    def _note(self, page: "Page", event: dict[str, Any]) -> None:
        if event["method"] == "Target.attachedToTarget":
            session = event["params"]["sessionId"]
            self._pages[session] = page
            self._listen(session)
        if event["method"] == "Target.detachedFromTarget":
            self._pages.pop(event["params"]["sessionId"], None)
        page.note(event["method"], event["params"])


class Page:
    """One window, used as somebody with a keyboard uses it. What it asks for and complains of is kept."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[dict[str, Any]] = []
        """Every request with url, method, headers (as they went out, where the browser tells) and postData."""
        self.complaints: list[str] = []
        """Errors of scripts, what a policy forbade, what could not be loaded; not an API's answer of 4xx."""
        self._requests: dict[str, dict[str, Any]] = {}
        self._loads = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command to this page."""
        return self._browser.call(method, self._session, **parameters)

    def note(self, event: str, about: dict[str, Any]) -> None:
        """Keeps an event."""
        match event:
            case "Page.loadEventFired":
                self._loads += 1
            case "Network.requestWillBeSent":
                self._requests[about["requestId"]] = request = about["request"]
                self.requests.append(request)
            case "Network.requestWillBeSentExtraInfo" if about["requestId"] in self._requests:
                self._requests[about["requestId"]]["headers"] |= about["headers"]
            case "Network.loadingFailed":
                url = self._requests.get(about["requestId"], {"url": "a frame"})["url"]
                self.complaints.append(f"{url}: {about['errorText']}")
            case "Runtime.exceptionThrown":
                self.complaints.append(str(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if about["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str(about["args"]))
            case "Log.entryAdded" if about["entry"]["source"] != "network":
                self.complaints.append(about["entry"]["text"])

    def open(self, url: str) -> None:
        """Goes to an address as if typed, and waits until all of it is loaded."""
        before = self._loads
        went = self.call("Page.navigate", url=url)
        assert "errorText" not in went, went
        if "loaderId" in went:  # another fragment of the same page loads nothing
            self.wait(lambda: self._loads > before, f"{url} is loaded")

    def follow(self, link: str) -> None:
        """Follows the link of this text."""
        before = self._loads
        self.run(f"[...document.links].find((one) => one.textContent.includes({json.dumps(link)})).click()")
        self.wait(lambda: self._loads > before, f"{link} is loaded")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise PageError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait(self, look: Callable[[], Any], what: str) -> Any:
        """What `look` returns once it is truthy; events come in meanwhile."""
        return eventually(lambda: (self.run("0"), look())[1], what, timeout_s=SEEN_WITHIN_S)

    def wait_for_text(self, text: str) -> None:
        """Waits until the page shows this."""
        try:
            self.wait(lambda: text in self.text(), repr(text))
        except AssertionError as fault:
            raise AssertionError(f"{fault}; the page shows:\n{self.text()}") from None

    def wait_for_complaint(self, text: str) -> None:
        """Waits until the browser tells that it forbade this."""
        self.wait(lambda: any(text in complaint for complaint in self.complaints), repr(text))

    def text(self) -> str:
        """What somebody sees, fields apart."""
        return str(self.run("document.body.innerText"))

    def text_with_frames(self) -> str:
        """The texts in every frame, those too that a sandbox closes to scripts."""
        return "".join(map(_text_below, self._browser.documents(self)))

    def press(self, key: str) -> None:
        """Presses and releases Tab or Enter."""
        code, text = _KEYS[key]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Types into whatever has the focus, over what stands there, as Tab leaves it marked."""
        self.run("document.activeElement.select?.()")
        self.call("Input.insertText", text=text)

    def focused(self) -> str:
        """The label of the field, or the text of the button, that the keyboard is on; "" if it is on none."""
        return str(
            self.run(
                "((one) => one.labels?.[0]?.innerText || (one.matches('button, a') ? one.innerText : ''))"
                "(document.activeElement)"
            )
        )

    def assert_fits(self) -> None:
        """Nothing is wider than the window."""
        assert self.run("document.documentElement.scrollWidth") <= self.run("innerWidth")

    def screenshot(self, path: Path) -> None:
        """Writes what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


def origin(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _text_below(node: dict[str, Any]) -> str:
    if node["nodeName"] in {"SCRIPT", "STYLE"}:
        return ""
    below = [*node.get("children", []), *filter(None, [node.get("contentDocument")])]
    return str(node["nodeValue"]) + "".join(map(_text_below, below))
