"""What other services ask for: shards of practices, the servers, what changed."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from shared.app import service_only
from shared.changes import changes_answer
from tenant_service import listing
from tenant_service.dependencies import (
    Central,
    Claimed,
    Eraser,
    Exporter,
    MakingSlots,
    PracticeId,
    Provisioner,
    UndoingSlots,
)
from tenant_service.handlers.shapes import json_answer
from tenant_service.models.copies import ExportOrder
from tenant_service.storage.directory import Shard

router = APIRouter(prefix="/internal", dependencies=[Depends(service_only)], include_in_schema=False)


def _shard_document(shard: Shard) -> dict[str, str | None]:
    return {
        "practice_id": str(shard.practice_id),
        "shard": str(shard.name) if shard.database else None,
        "database": shard.database,
        "state": shard.state,
    }


@router.put("/shards/{practice_id}")
async def put_shard(
    practice_id: PracticeId, provisioning: Provisioner, slots: MakingSlots, claimed: Claimed
) -> Response:
    """Ensure the practice's shard: 201 when it was made now, 200 when it was there, 409 when it was undone."""
    shard, made = await slots.run(provisioning.ensure, practice_id)
    if made:
        claimed.set()
    return json_answer(_shard_document(shard), status=201 if made else 200)


@router.get("/shards/{practice_id}")
def get_shard(practice_id: PracticeId, provisioning: Provisioner) -> Response:
    """Tell where the practice's shard is: 404 when it has none, 503 while it can't be used."""
    return json_answer(_shard_document(provisioning.find(practice_id)))


@router.delete("/shards/{practice_id}")
async def delete_shard(practice_id: PracticeId, provisioning: Provisioner, slots: UndoingSlots) -> Response:
    """Undo a sign-up's shard. The state in the answer is `undone`, or `quarantined` when it was kept."""
    return json_answer(_shard_document(await slots.run(provisioning.release, practice_id)))


@router.post("/shards/{practice_id}/erase")
async def erase_shard(practice_id: PracticeId, erasing: Eraser, slots: UndoingSlots) -> Response:
    """Destroy all data of a closed practice. The answer tells what there was; done again it finds nothing."""
    return json_answer(await slots.run(erasing.erase, practice_id))


@router.post("/shards/{practice_id}/export")
def export_shard(practice_id: PracticeId, order: ExportOrder, exporting: Exporter) -> Response:
    """Write what the practice takes with it into a folder on this machine."""
    facts = exporting.export(practice_id, Path(order.to), practice=order.practice, audit=order.audit)
    return json_answer(facts, status=201)


@router.get("/servers")
def get_servers(central: Central) -> Response:
    """Tell where the shard servers are."""
    shown = ("key", "host", "port", "sslmode", "sslrootcert", "max_connections")
    servers = listing.known_servers(central)
    return json_answer({"servers": [{name: getattr(server, name) for name in shown} for server in servers]})


@router.get("/changes")
def get_changes(central: Central, after: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None) -> Response:
    """Tell what a cached answer of this directory must not survive."""
    news = listing.news(central, after)
    changes = (
        {"seq": row["seq"], "kind": row["kind"], "practice_id": str(row["practice_id"]), "session_id": None}
        for row in news.rows
    )
    return changes_answer(changes, last=news.last, is_reset=news.reset)
