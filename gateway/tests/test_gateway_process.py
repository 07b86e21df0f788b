"""`python -m gateway` as the stack starts it: on inherited sockets, before anything else is there, until SIGTERM."""

import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from gateway_stand import SECRET, eventually

ENVIRONMENT = {
    "GATEWAY_SECRET": SECRET,
    "ADMIN_PASSWORD": "a-long-admin-password",
    "AUTH_SERVICE_URL": "unix:/nowhere/auth.sock",
    "TENANT_SERVICE_URL": "http://127.0.0.1:1",
    "PATIENT_SERVICE_URL": "unix:/nowhere/patient.sock",
}


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_alone_on_inherited_sockets_and_ends_on_a_signal(tmp_path, ending: signal.Signals) -> None:
    public = socket.create_server(("127.0.0.1", 0))
    metrics = socket.create_server(("127.0.0.1", 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway"],
        env={
            "PATH": os.environ["PATH"],
            **ENVIRONMENT,
            "SERVICE_FD": str(public.fileno()),
            "METRICS_FD": str(metrics.fileno()),
        },
        pass_fds=(public.fileno(), metrics.fileno()),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        url, metrics_url = (f"http://127.0.0.1:{one.getsockname()[1]}" for one in (public, metrics))
        with httpx.Client(timeout=20) as client:
            assert client.get(f"{url}/livez").status_code == 200
            answer = client.get(f"{url}/readyz")
            assert answer.status_code == 503
            services = {"auth-service", "tenant-service", "patient-service"}
            assert answer.json()["missing"].keys() == services | {"jwks", "revocations", "directory"}
            assert client.get(f"{url}/api/v1/patients").status_code == 401
            refused = client.get(f"{url}/api/v1/patients", headers={"Authorization": "Bearer a.b.c"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            eventually(lambda: 'route="/livez"' in client.get(f"{metrics_url}/metrics").text)
            assert client.get(f"{metrics_url}/readyz").json() == answer.json(), (
                "of this process, if several share the port"
            )
            assert client.get(f"{metrics_url}/api/v1/patients").status_code == 404
        process.send_signal(ending)
        process.wait(15)
    finally:
        process.kill()
        output = process.communicate()[0].decode()
        public.close()
        metrics.close()
    assert "Traceback" not in output
    assert process.returncode in {0, -ending, 128 + ending, 1}


def test_faulty_settings_are_all_named_and_nothing_starts(tmp_path) -> None:
    environment = {**ENVIRONMENT, "PATH": os.environ["PATH"], "ADMIN_PASSWORD": "hunter2", "GATEWAY_SECRET": "hunter3"}
    environment["PATIENT_SERVICE_URL"] = "unix:/run/a.sock,b:5003"
    done = subprocess.run(
        [sys.executable, "-m", "gateway"], env=environment, cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 78
    assert b"ADMIN_PASSWORD" in done.stderr
    assert b"GATEWAY_SECRET" in done.stderr
    assert b"PATIENT_SERVICE_URL: must be http://host:port or unix:/path, or several of them" in done.stderr
    assert b"hunter" not in done.stderr + done.stdout
