"""The gateway's settings: good ones are taken, faulty ones refused without showing them."""

import pytest
from pydantic import ValidationError

from gateway.config import Settings

SECRET = "0123456789abcdef-gateway-stand-secret-fedcba"

GOOD = {
    "gateway_secret": SECRET,
    "admin_password": "a-long-admin-password",
    "auth_service_url": "unix:/run/auth.sock",
    "tenant_service_url": "http://tenant:5002",
    "patient_service_url": "http://patient:5003",
}


def test_good_settings_are_taken() -> None:
    settings = Settings(_env_file=None, **GOOD, trusted_proxies="10.0.0.0/8, fd00::/8")
    assert (settings.port, len(settings.trusted_proxies), settings.admin_user_name) == (5000, 2, "admin")
    assert settings.patient_service_url == ("http://patient:5003",)


def test_processes_are_numbered_alike_however_they_are_listed() -> None:
    """Two gateways that number them differently would send one practice to two processes."""
    one, other = (
        Settings(_env_file=None, **GOOD | {"patient_service_url": listed}).patient_service_url
        for listed in ("unix:/run/a.sock,http://b:5003", "http://b:5003, unix:/run/a.sock")
    )
    assert one == other
    assert len(one) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("admin_password", "short"),
        ("admin_password", "your_long_password"),
        ("log_level", "chatty"),
        ("admin_user_name", "a:b"),
        ("gateway_secret", "short"),
        ("auth_service_url", "ftp://x"),
        ("auth_service_url", "auth:5001"),
        ("patient_service_url", ""),
        ("patient_service_url", "patient:5003"),
        ("patient_service_url", "http://a:5003,b:5003"),
        ("patient_service_url", "http://a:5003,,http://b:5003"),
        ("patient_service_url", "unix:/run/a.sock, unix:/run/a.sock"),
        ("trusted_proxies", "everybody"),
        ("trusted_proxies", "10.0.0.1/8"),
        ("port", 70000),
        ("call_timeout_s", 0),
    ],
)
def test_faulty_settings_are_refused_without_showing_them(name: str, value) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(_env_file=None, **{**GOOD, name: value})
    assert [fault["loc"] for fault in refused.value.errors()] == [(name,)]
    if name == "admin_password":
        assert value not in str(refused.value).replace("shorter", "")


def test_the_admin_s_password_is_not_the_one_of_an_example() -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None, **{**GOOD, "admin_password": "admin_password"})


def test_the_log_level_may_be_written_in_lower_case() -> None:
    assert Settings(_env_file=None, **GOOD, log_level="debug").log_level == "DEBUG"


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
