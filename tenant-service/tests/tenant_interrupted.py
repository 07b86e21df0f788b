"""Run as a process: does deeds, each in a process of its own that kills itself (SIGKILL) at a step, or after a time.

It has what they need loaded, so that a deed costs a fork and not two seconds of imports. A line of its input is a JSON
object with `environment` and `words`, a line of its output how the deed's process ended, as `subprocess` tells it.
The words: <deed> <practice id, or - where there is none> <module or class>.<function> before|after
or: <deed> <practice id, or - where there is none> <milliseconds>

Deeds: ensure, release (of a practice's shard); move (it to server b); refill, settle (the warm pool);
a job as JSON: its arguments, and `kind` and `job_id`.
"""

import json
import os
import pkgutil
import signal
import sys
import threading
import traceback
import uuid
from typing import Any

from migration_stand import NoProgress

from tenant_service.config import Settings
from tenant_service.main import create_app


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt(step: str, when: str) -> None:
    owner_name, _, name = step.rpartition(".")
    owner = pkgutil.resolve_name(f"tenant_service.{owner_name}")
    original = getattr(owner, name)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            die()
        original(*arguments, **options)
        die()

    setattr(owner, name, interrupted)


def do(deed: str, practice_id: str, *where: str) -> None:
    app = create_app(Settings(_env_file=None))
    assert app.state.servers.refresh()
    if len(where) == 1:
        threading.Timer(float(where[0]) / 1000, die).start()
    else:
        interrupt(*where)
    if practice_id == "-" and not deed.startswith("{"):
        getattr(app.state.pool, deed)()
    elif deed == "move":
        app.state.moving.move(uuid.UUID(practice_id), "b", NoProgress())
    elif deed.startswith("{"):  # a job, as JSON
        order = json.loads(deed)
        app.state.deeds[order.pop("kind")](order, NoProgress(uuid.UUID(order.pop("job_id"))))
    else:
        getattr(app.state.provisioning, deed)(uuid.UUID(practice_id))


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what it logs is no answer
            os.environ.clear()
            os.environ.update(order["environment"])
            code = 1
            try:
                do(*order["words"])
                code = 0
            except BaseException:  # noqa: BLE001 - told, and it ends here
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


main()
