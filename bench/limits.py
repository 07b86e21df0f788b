"""What the machine could do at best: nginx handing the same bytes on, PostgreSQL alone, bcrypt alone."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import bcrypt
from measured import Measured, of_latencies
from stand import Stand, free_port, wait_for_listener

from gowebbo_stack.binaries import postgres_install

PGBENCH = postgres_install() / "bin/pgbench"
_NGINX_PLACES = "/usr/sbin:/usr/local/sbin"
_PIECE_BYTES = 2000
"""nginx takes no longer word in its configuration than 4 KB."""

_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream answering {{ server 127.0.0.1:{inner}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{outer};
    location / {{ proxy_pass http://answering; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
  server {{
    listen 127.0.0.1:{inner};
    default_type application/json;
    {pieces}
    location / {{ return 200 {names}; }}
  }}
}}
"""


def nginx_program() -> str | None:
    """Where nginx is, if it is installed; Debian keeps it off a user's PATH."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:{_NGINX_PLACES}")


@contextmanager
def nginx_proxying(body: bytes) -> Iterator[int | None]:
    """The port of an nginx with one worker that fetches `body` from itself for each request; None without nginx."""
    nginx = nginx_program()
    if nginx is None:
        yield None
        return
    text = body.decode()
    pieces = [text[start : start + _PIECE_BYTES] for start in range(0, len(text), _PIECE_BYTES)]
    assert "'" not in text, "the body must fit into a quoted word of nginx's"
    assert "$" not in text, "nginx would look for a variable"
    with tempfile.TemporaryDirectory(prefix="gowebbo-nginx-") as folder:
        outer = free_port()
        config = Path(folder, "nginx.conf")
        config.write_text(
            _NGINX.format(
                folder=folder,
                outer=outer,
                inner=free_port(),
                pieces="".join(f"set $piece_{n} '{piece}';" for n, piece in enumerate(pieces)),
                names="".join(f"$piece_{n}" for n in range(len(pieces))),
            )
        )
        process = subprocess.Popen([nginx, "-p", folder, "-c", config, "-e", f"{folder}/error.log"])
        try:
            wait_for_listener(lambda: socket.create_connection(("127.0.0.1", outer)))
            yield outer
        finally:
            process.terminate()
            process.wait(10)


def pgbench(stand: Stand, database: str, script: str, *, seconds: float, clients: int) -> Measured:
    """Runs one SQL script in a loop, planned once for each client, as the superuser."""
    address = urlsplit(stand.dsn)
    with tempfile.TemporaryDirectory(prefix="gowebbo-pgbench-") as folder:
        file = Path(folder, "script.sql")
        file.write_text(script)
        command = [str(PGBENCH), "--no-vacuum", "-M", "prepared", "-f", str(file)]
        length = ["-j1", f"-c{clients}", f"-T{seconds:.0f}"]
        server = ["-h", stand.postgres_host, "-p", str(address.port), "-U", str(address.username), database]
        environment = {**os.environ, "PGPASSWORD": str(address.password)}
        text = subprocess.check_output(
            [*command, *length, *server], env=environment, stderr=subprocess.DEVNULL, text=True
        )
    rate, calls = re.search(r"tps = ([\d.]+)", text), re.search(r"actually processed: (\d+)", text)
    assert rate
    assert calls
    return Measured(float(rate[1]), int(calls[1]))


def checkpw(*, cost: int, seconds: float) -> Measured:
    """Bare bcrypt in as many threads as there are cores."""
    hashed = bcrypt.hashpw(b"a password", bcrypt.gensalt(cost))
    began = time.perf_counter()
    latencies_s: list[float] = []

    def check() -> None:
        while (started := time.perf_counter()) < began + seconds:
            bcrypt.checkpw(b"a password", hashed)
            latencies_s.append(time.perf_counter() - started)

    threads = [threading.Thread(target=check) for _ in range(len(os.sched_getaffinity(0)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return of_latencies(latencies_s, seconds=time.perf_counter() - began)
