"""Which of a practice's backups are kept: of each of the last hours, days and weeks the newest. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple


class KeepRule(NamedTuple):
    """How many hours, days and weeks that have a backup keep one."""

    hourly: int
    daily: int
    weekly: int

    def kept(self, moments: Iterable[datetime]) -> set[datetime]:
        """Those of the moments, in UTC, that are kept; the newest always."""
        newest_first = sorted(moments, reverse=True)
        kept = set(newest_first[:1])
        for count, period in ((self.hourly, _hour), (self.daily, _day), (self.weekly, _week)):
            kept |= _newest_of_each(newest_first, count, period)
        return kept


def _newest_of_each(
    newest_first: Sequence[datetime], count: int, period: Callable[[datetime], object]
) -> set[datetime]:
    found: dict[object, datetime] = {}
    for moment in newest_first:
        if period(moment) not in found:
            if len(found) == count:
                break
            found[period(moment)] = moment
    return set(found.values())


def _hour(moment: datetime) -> object:
    return moment.date(), moment.hour


def _day(moment: datetime) -> object:
    return moment.date()


def _week(moment: datetime) -> object:
    return moment.isocalendar()[:2]
