"""The clients between services: whom they trust."""

import ssl

import pytest

from shared.client import async_service_client, service_client


@pytest.mark.parametrize("make", [service_client, async_service_client])
def test_a_client_for_plain_http_loads_no_certificate_authorities(make, monkeypatch):
    loaded = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **where: loaded.append(where))
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *where: loaded.append(where))
    make("http://127.0.0.1:1", name="toy", keys=[b"k" * 32])
    assert loaded == []
