"""The operator's commands: `python -m notifier.cli dead-letters` and `… replay`. Shows ids, never addresses."""

import argparse
import sys

from notifier.config import Settings
from notifier.storage import DeadLetter, MailRecord, connect
from shared.events import Event, EventError
from shared.settings import load


def main() -> None:
    """Exit status 1 when a dead letter that was named is unknown."""
    arguments = _parser().parse_args()
    settings = load(Settings)
    record = MailRecord(connect(settings.redis_url), lock_s=settings.sending_lock_s)
    letters = record.dead_letters()
    if arguments.command == "dead-letters":
        show(letters)
        return
    chosen = [letter for letter in letters if arguments.all or letter.id in arguments.ids]
    unknown = set(arguments.ids) - {letter.id for letter in letters}
    replay(record, chosen)
    if unknown:
        sys.stderr.write("".join(f"no such dead letter: {one}\n" for one in sorted(unknown)))
        raise SystemExit(1)


def show(letters: list[DeadLetter]) -> None:
    """One line each: id, time, event's type and id, reason."""
    for letter in letters:
        event = _event_of(letter)
        about = f"{event.type} {event.id}" if event else "- -"
        sys.stdout.write(f"{letter.id} {letter.at} {about} {letter.reason}\n")


def replay(record: MailRecord, letters: list[DeadLetter]) -> None:
    """Puts them back on the stream; what is no event stays dead."""
    for letter in letters:
        event = _event_of(letter)
        if event is None:
            sys.stderr.write(f"{letter.id} is no event and stays where it is\n")
            continue
        record.replay(letter, event_id=event.id)
        sys.stdout.write(f"{letter.id} replayed\n")


def _event_of(letter: DeadLetter) -> Event | None:
    try:
        return Event.from_fields(letter.fields)
    except EventError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m notifier.cli", description="Dead letters of the notifier.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("dead-letters", help="list them")
    again = commands.add_parser("replay", help="put them back on the stream")
    which = again.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", nargs="*", default=[], help="their ids")
    which.add_argument("--all", action="store_true", help="all of them")
    return parser


if __name__ == "__main__":
    main()
