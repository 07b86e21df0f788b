"""`.env.example` is the list of all settings: none is missing there, and none is there that nothing reads."""

import re
from pathlib import Path

import pytest

import auth_service.config
import gateway.config
import notifier.config
import patient_service.config
import tenant_service.config
from shared.settings import EnvironmentSettings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"
MODULES = [module.config for module in (auth_service, gateway, notifier, patient_service, tenant_service)]
STACK = {"GOWEBBO_HOME", "EMBEDDED_MAX_CONNECTIONS", "EMBEDDED_SERVERS", "GATEWAY_PROCESSES", "GOWEBBO_URL"}
ONE_PAIR_FOR_EACH_SERVER = {"SERVER_A_USER", "SERVER_A_PASS"}


def documented():
    return set(re.findall(r"^# ([A-Z][A-Z0-9_]+)=", EXAMPLE.read_text(), re.MULTILINE))


def settings_types():
    for module in MODULES:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, EnvironmentSettings) and value is not EnvironmentSettings:
                yield value


def read_by_services():
    return {name.upper() for settings in settings_types() for name in settings.model_fields}


def read_by_compose():
    return set(re.findall(r"\$\{([A-Z][A-Z0-9_]+)", (ROOT / "docker-compose.yml").read_text()))


def test_every_setting_is_in_the_example():
    assert (read_by_services() | read_by_compose()) - documented() == set()


def test_nothing_is_in_the_example_that_nobody_reads():
    assert documented() - read_by_services() - read_by_compose() - STACK - ONE_PAIR_FOR_EACH_SERVER == set()


@pytest.mark.parametrize(
    "settings", sorted(set(settings_types()), key=repr), ids=lambda one: f"{one.__module__}.{one.__qualname__}"
)
def test_every_setting_says_what_it_is(settings):
    assert [name for name, field in settings.model_fields.items() if not field.description] == []
