"""The service as a process: its settings, its socket, its end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from patient_practices import GATEWAY_KEY, SHARD_KEY, TenantService, eventually, settings_for
from pydantic import ValidationError

pytestmark = pytest.mark.anyio

ENVIRONMENT = {
    "GATEWAY_SECRET": GATEWAY_KEY.decode(),
    "SHARD_SECRET": SHARD_KEY.decode(),
    "TENANT_SERVICE_URL": "http://127.0.0.1:1",
}


@contextmanager
def started(listener: socket.socket) -> Iterator["subprocess.Popen[bytes]"]:
    environment = os.environ | ENVIRONMENT | {"SERVICE_FD": str(listener.fileno())}
    process = subprocess.Popen([sys.executable, "-m", "patient_service"], env=environment, pass_fds=[listener.fileno()])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_it_lives_on_an_inherited_socket_with_everything_down_and_ends_on_sigterm():
    with socket.create_server(("127.0.0.1", 0)) as listener, started(listener) as process:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/api/v1/patients")).status_code == 401
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: process.poll() is not None)
        assert process.returncode in {0, -signal.SIGTERM}


def test_faulty_settings_are_all_named_and_never_shown():
    environment = {"PATH": os.environ["PATH"], "GATEWAY_SECRET": "short-secret", "CONNECTIONS_PER_PRACTICE": "5"}
    ended = subprocess.run(
        [sys.executable, "-m", "patient_service"], env=environment, capture_output=True, text=True, cwd="/", check=False
    )
    assert ended.returncode == 78
    for name in ("GATEWAY_SECRET", "SHARD_SECRET", "TENANT_SERVICE_URL", "CONNECTIONS_PER_PRACTICE"):
        assert name in ended.stderr
    assert "short-secret" not in ended.stderr


@pytest.mark.parametrize(
    ("changes", "max_connections", "budget"),
    [
        ({}, 100, 70),
        ({}, 1000, 970),
        ({"patient_processes": 4}, 1000, 242),
        ({"patient_processes": 4}, 31, 1),
        ({"shard_connections": 7}, 1000, 7),
    ],
)
def test_the_budget_is_a_share_of_what_the_server_allows(changes: dict[str, Any], max_connections: int, budget: int):
    assert settings_for(TenantService(url="http://x"), **changes).budget(max_connections) == budget


def test_every_setting_is_described():
    settings = settings_for(TenantService(url="http://x"))
    assert all(field.description for field in type(settings).model_fields.values())
    with pytest.raises(ValidationError):
        settings_for(TenantService(url="http://x"), shard_connections=0)
