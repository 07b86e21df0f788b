"""The stack that all end-to-end tests share, and their words. Whoever kills processes starts a stack of its own."""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e_api import Api, Practice
from e2e_browser import Browser, Page, run_browser
from e2e_stack import EmbeddedStack, Mailbox, StackFactory, finish_removals, new_folder, new_secret

ADMIN = ("the-admin", secrets.token_hex(12))
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything in this folder is end to end; what needs a Docker engine runs only where COMPOSE_TESTS=1."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
    if os.environ.get("COMPOSE_TESTS") != "1":
        left_out = [item for item in items if item.get_closest_marker("compose")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("compose")]


def pytest_sessionfinish() -> None:
    """Leaves nothing behind."""
    finish_removals()


@pytest.fixture(scope="module")
def new_stack() -> Iterator[StackFactory]:
    """Makes embedded stacks (not started yet) that are gone at the end of the module."""
    made: list[EmbeddedStack] = []

    def make(**settings: str) -> EmbeddedStack:
        made.append(EmbeddedStack(new_folder(), **settings))
        return made[-1]

    yield make
    for stack in made:
        stack.discard()


@pytest.fixture(scope="session")
def stack() -> Iterator[EmbeddedStack]:
    """One running stack for every test that leaves its processes alone. It must stop cleanly at the end."""
    one = EmbeddedStack(
        new_folder(),
        ADMIN_USER_NAME=ADMIN[0],
        ADMIN_PASSWORD=ADMIN[1],
        GATEWAY_SECRET=new_secret(),
        SHARD_SECRET=new_secret(),
    )
    try:
        one.start()
        yield one
        assert one.stop() == 0, one.printed()[-2000:]
    finally:
        one.discard()


@pytest.fixture(scope="session")
def api(stack: EmbeddedStack) -> Iterator[Api]:
    """A client that sends no credentials of its own."""
    client = Api(stack.url)
    yield client
    client.close()


@pytest.fixture(scope="session")
def admin() -> tuple[str, str]:
    """The platform admin's Basic credentials."""
    return ADMIN


@pytest.fixture(scope="session")
def new_practice(api: Api) -> Callable[..., Practice]:
    """Signs a practice up and logs it in."""

    def make(**changes: object) -> Practice:
        return Practice.join(api, **changes)

    return make


@pytest.fixture(scope="module")
def practice(new_practice: Callable[..., Practice]) -> Practice:
    """A practice that the tests of one module share: it may have any patients."""
    return new_practice()


@pytest.fixture(scope="module")
def other_practice(new_practice: Callable[..., Practice]) -> Practice:
    """A stranger."""
    return new_practice()


@pytest.fixture(scope="session")
def mailbox(stack: EmbeddedStack) -> Mailbox:
    """The mails that the shared stack caught."""
    return stack.mailbox


@pytest.fixture(scope="session")
def superuser_dsn(stack: EmbeddedStack) -> str:
    """The superuser's URL of the shared stack's PostgreSQL."""
    return stack.dsn()


@pytest.fixture(scope="session")
def central_database(stack: EmbeddedStack) -> str:
    """The name of the shared stack's central database."""
    return stack.central_database()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser; every test opens windows of its own."""
    with run_browser() as one:
        yield one


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window as wide as a desk."""
    with browser.page() as one:
        yield one
