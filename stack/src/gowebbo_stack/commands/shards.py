"""`gowebbo shards …`."""

from collections import Counter
from typing import Annotated, Any

import typer

from gowebbo_stack.commands.terminal import AsJson, Url, Yes, as_admin, fail, moving_bar, print_json, print_rows

app = typer.Typer(help="Practices' databases: how far their migrations are.", no_args_is_help=True)

Canary = Annotated[int, typer.Option(min=0, help="So many first; the rest only if they all succeed.")]


@app.command()
def status(*, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """Look at every shard itself. Exit code 0 only when all of them are current."""
    from gowebbo_stack import operations  # noqa: PLC0415

    with moving_bar("Looking at shards") as tell:
        found = as_admin(url, lambda admin: operations.shards_status(admin, tell=tell))
    _show(found, as_json=as_json, wanted="current")


@app.command()
def migrate(*, canary: Canary = 0, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """Bring every shard to the newest revision. Exit code 0 only when all of them are there and as they should be.

    What was interrupted is repeated: only what is left will be done.
    """
    from gowebbo_stack import operations  # noqa: PLC0415

    with moving_bar("Migrating shards") as tell:
        outcome = as_admin(url, lambda admin: operations.migrate_shards(admin, canary, tell=tell))
    if outcome["stopped"]:
        hint = f"One of the first {canary} did not succeed: the rest was left alone."
    else:
        hint = "What failed was left as it was, what drifted is fenced: repair it and repeat this."
    _show(outcome, as_json=as_json, wanted="done", hint=hint)


def _show(found: dict[str, Any], *, as_json: bool, wanted: str, hint: str = "") -> None:
    """Print the shards, and end without success unless all are as wanted."""
    from gowebbo_stack.operations import SHARD_COLUMNS  # noqa: PLC0415

    shards = found["shards"]
    if as_json:
        print_json({"head": found["head"], "shards": shards})
    else:
        print_rows(shards, SHARD_COLUMNS, as_json=False)
        print(f"Newest revision: {found['head']}")  # noqa: T201
    counts = Counter(shard["state"] for shard in shards)
    if set(counts) - {wanted}:
        told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        fail(f"{told}. {hint}".strip())
