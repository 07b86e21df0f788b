"""Where a practice's data is: asked of tenant-service once, remembered until a change says otherwise."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from gateway.asking import Asker, NoAnswerError
from gateway.changes import Change
from gateway.exceptions import PracticeWithoutShardError
from shared.errors import ShardMaintenanceError, UnavailableError
from shared.logs import get_logger
from shared.shards import ShardName, ShardNameError

MAX_ENTRIES = 50_000
ASK_TIMEOUT_S = 2.0
RETRY_AFTER_S = 2
_log = get_logger()


class Directory:
    """practice → `<server>/<database>`; bounded, one question at a time for each practice."""

    def __init__(self, asker: Asker, *, max_entries: int = MAX_ENTRIES) -> None:
        self._asker = asker
        self._max_entries = max_entries
        self._shards: OrderedDict[str, str] = OrderedDict()
        self._asked: dict[str, asyncio.Task[str]] = {}

    async def shard_of(self, practice_id: str) -> str:
        """The shard's name; there is no default shard.

        Raises PracticeWithoutShardError, ShardMaintenanceError or UnavailableError.
        """
        shard = self._shards.get(practice_id)
        if shard is not None:
            return shard
        question = self._asked.get(practice_id)
        if question is None:
            question = asyncio.create_task(self._ask(practice_id))
            self._asked[practice_id] = question
            question.add_done_callback(lambda done: self._answered(practice_id, done))
        # shielded: several calls may wait for it, and one that goes away mustn't take the answer from the others
        return await asyncio.shield(question)

    def recall(self, practice_id: str) -> str | None:
        """The shard's name if it is known."""
        return self._shards.get(practice_id)

    def forget(self, practice_id: str) -> None:
        """Asks anew at the next call; an answer that is under way may be old, so it isn't remembered."""
        self._shards.pop(practice_id, None)
        self._asked.pop(practice_id, None)

    def start_over(self, changes: Sequence[Change]) -> None:  # noqa: ARG002 - everything is forgotten anyway
        """See changes.Listener."""
        self._shards.clear()
        self._asked.clear()

    def apply(self, changes: Sequence[Change]) -> None:
        """See changes.Listener. Whatever happened to a practice's shard, the directory is asked again."""
        for change in changes:
            self.forget(str(change.get("practice_id")))

    def _answered(self, practice_id: str, question: asyncio.Task[str]) -> None:
        failed = question.cancelled() or question.exception() is not None
        if self._asked.get(practice_id) is not question:
            return
        del self._asked[practice_id]
        if failed:
            return
        if len(self._shards) >= self._max_entries:
            self._shards.popitem(last=False)
        self._shards[practice_id] = question.result()

    async def _ask(self, practice_id: str) -> str:
        try:
            status, answer = await self._asker.get(f"/internal/shards/{practice_id}", timeout_s=ASK_TIMEOUT_S)
        except NoAnswerError as fault:
            raise UnavailableError(retry_after_s=RETRY_AFTER_S) from fault
        if status == 404:  # noqa: PLR2004 - HTTP's Not Found
            _log.error("practice_without_shard", practice_id=practice_id)
            raise PracticeWithoutShardError(retry_after_s=RETRY_AFTER_S)
        try:
            if status != 200:  # noqa: PLR2004 - HTTP's OK
                raise _refusal(answer)
            return str(ShardName.parse(answer["shard"]))
        except (KeyError, TypeError, ShardNameError) as fault:
            _log.error("directory_answer_malformed", practice_id=practice_id)
            raise UnavailableError(retry_after_s=RETRY_AFTER_S) from fault


def _refusal(answer: Any) -> UnavailableError:
    """A client is told of its practice's maintenance; every other reason is ours."""
    if isinstance(answer, dict) and answer.get("type") == f"/errors/{ShardMaintenanceError.error}":
        return ShardMaintenanceError()
    return UnavailableError(retry_after_s=RETRY_AFTER_S)
