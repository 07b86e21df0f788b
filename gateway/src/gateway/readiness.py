"""Whether sign-up and patient calls would work right now."""

import asyncio
from collections.abc import Mapping, Sequence

from gateway.asking import Asker, NoAnswerError
from gateway.changes import ChangeFeed
from gateway.keys import KeyRing
from gateway.routes import Service

ASK_TIMEOUT_S = 2.0


class GatewayReadiness:
    """Asks the services in parallel; names what is missing."""

    def __init__(
        self, askers: Mapping[Service, Sequence[Asker]], *, keys: KeyRing, feeds: Mapping[str, ChangeFeed]
    ) -> None:
        self._askers = askers
        self._keys = keys
        self._feeds = feeds
        self._asked: asyncio.Task[dict[str, str]] | None = None

    async def missing(self) -> dict[str, str]:
        """What is missing, by name. Calls at the same time share one round of questions: the page is public."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asked)

    async def _ask(self) -> dict[str, str]:
        answers = await asyncio.gather(*(_state(askers) for askers in self._askers.values()))
        missing = {service.value: state for service, state in zip(self._askers, answers, strict=True) if state}
        if not self._keys.is_known:
            missing["jwks"] = "not fetched yet"
        missing |= {name: "not loaded" for name, feed in self._feeds.items() if not feed.is_current}
        return missing


async def _state(askers: Sequence[Asker]) -> str:
    """What is wrong with a service; nothing as long as one of its processes is ready.

    Whoever takes a gateway out because of one of several would take it from the practices of the others too.
    """
    states = await asyncio.gather(*(_state_of_one(asker) for asker in askers))
    return "" if "" in states else states[0]


async def _state_of_one(asker: Asker) -> str:
    try:
        status, _ = await asker.get("/readyz", timeout_s=ASK_TIMEOUT_S)
    except NoAnswerError:
        return "does not answer"
    return "" if status == 200 else "not ready"  # noqa: PLR2004 - HTTP's OK
