"""Run as a process: does a deed and kills itself (SIGKILL) at a step, or after a time.

python tenant_interrupted.py <deed> <practice id, or - where there is none> <module or class>.<function> before|after
python tenant_interrupted.py <deed> <practice id, or - where there is none> <milliseconds>

Deeds: ensure, release (of a practice's shard); move (it to server b); refill, settle (the warm pool);
a job as JSON: its arguments, and `kind` and `job_id`.
"""

import json
import os
import pkgutil
import signal
import sys
import threading
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


def main() -> None:
    deed, practice_id, *where = sys.argv[1:]
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
    os._exit(0)


main()
