"""Who decides (environment, .env, first run) and who is told (only those that need it)."""

import json
import stat

import pytest

from gowebbo_stack import settings as module
from gowebbo_stack.launching import start
from gowebbo_stack.services import Addresses, Services
from gowebbo_stack.settings import SettingsError, load_secrets, read_given, read_settings

GOOD = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "base_folder", lambda: tmp_path)
    return tmp_path


def read(**environment):
    settings = read_settings(read_given(environment))
    settings.home.prepare()
    return settings


def test_the_environment_beats_dotenv_and_dotenv_beats_generated_secrets(base):
    (base / ".env").write_text(f"PORT=6001\nJWT_SECRET={GOOD}\nADMIN_PASSWORD=from-dot-env-file\nLOG_LEVEL=\n")
    settings = read(PORT="6002", ADMIN_PASSWORD="from-environment")
    secrets = load_secrets(settings)
    assert settings.port == 6002
    assert secrets["JWT_SECRET"] == GOOD
    assert secrets["ADMIN_PASSWORD"] == "from-environment"
    assert "LOG_LEVEL" not in settings.given, "an empty value is none"


def test_a_secret_may_come_from_a_file(base):
    (base / "jwt").write_text(GOOD + "\n")
    assert load_secrets(read(JWT_SECRET_FILE=str(base / "jwt")))["JWT_SECRET"] == GOOD
    with pytest.raises(SettingsError, match="SHARD_SECRET_FILE"):
        read(SHARD_SECRET_FILE=str(base / "absent"))


def test_a_file_beats_dotenv_and_the_environment_beats_both(base):
    """As services read theirs, whichever layer names the file."""
    for name in ("one", "two"):
        (base / name).write_text(f"user-of-file-{name}\n")
    (base / ".env").write_text(
        f"ADMIN_USER_NAME=of-dotenv\nADMIN_USER_NAME_FILE={base / 'one'}\nJWT_SECRET=of-dotenv\n"
    )
    assert read_given({})["ADMIN_USER_NAME"] == "user-of-file-one"
    assert read_given({"ADMIN_USER_NAME_FILE": str(base / "two")})["ADMIN_USER_NAME"] == "user-of-file-two"
    assert read_given({"ADMIN_USER_NAME": "of-environment"})["ADMIN_USER_NAME"] == "of-environment"
    assert read_given({"ADMIN_USER_NAME": ""})["ADMIN_USER_NAME"] == "user-of-file-one", "an empty value is none"


def test_a_file_for_a_service_to_read_is_not_overruled_by_dotenv(base):
    (base / ".env").write_text("TOKEN_EXPIRE_IN=1hr\nLOG_LEVEL=INFO\n")
    given = read_given({"TOKEN_EXPIRE_IN_FILE": "/run/secrets/life"})
    assert given == {"TOKEN_EXPIRE_IN_FILE": "/run/secrets/life", "LOG_LEVEL": "INFO"}


def test_generated_secrets_are_private_and_stay(base):
    first = load_secrets(read())
    file = base / ".gowebbo" / "secrets.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_secrets(read()) == first
    assert len(set(first.values())) == len(first)
    assert first["ADMIN_USER_NAME"] == "admin"


def test_a_users_secret_is_not_kept_in_the_home(base):
    load_secrets(read(JWT_SECRET=GOOD))
    assert GOOD not in (base / ".gowebbo" / "secrets.json").read_text()


def test_lost_secrets_are_not_replaced_while_data_needs_them(base):
    settings = read()
    settings.home.postgres("a").mkdir()
    with pytest.raises(SettingsError, match="is missing"):
        load_secrets(settings)


def test_all_faults_are_told_at_once(base):
    with pytest.raises(SettingsError) as caught:
        read(
            PORT="http",
            EMBEDDED_SERVERS="0",
            GATEWAY_PROCESSES="two",
            PATIENT_PROCESSES="100",
            JWT_SECRET="your_jwt_secret",
            ADMIN_PASSWORD="short",
        )
    for name in ("PORT", "EMBEDDED_SERVERS", "GATEWAY_PROCESSES", "PATIENT_PROCESSES", "JWT_SECRET", "ADMIN_PASSWORD"):
        assert f"  {name}:" in str(caught.value)
    assert "your_jwt_secret" not in str(caught.value)


@pytest.mark.parametrize("password", ["admin_password", "change-me-please", "your_admin_password"])
def test_an_admin_password_of_a_document_is_refused(base, password):
    with pytest.raises(SettingsError, match="ADMIN_PASSWORD: looks like a sample"):
        read(ADMIN_PASSWORD=password)


def test_a_server_that_was_made_is_started_even_when_fewer_are_asked_for(base):
    settings = read(EMBEDDED_SERVERS="2")
    assert settings.server_keys == ["a", "b"]
    settings.home.postgres("b").mkdir()
    assert read().server_keys == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "host"), [("0.0.0.0", "0.0.0.0"), ("x86_64-conda-linux-gnu", "127.0.0.1"), ("::1", "::1")]
)
def test_host_is_an_address(base, given, host):
    assert read(HOST=given).host == host


class Fake:
    """A socket that is only asked for its number."""

    def fileno(self):
        return 9


def launches(base, **environment):
    """Return every process's environment by its name."""
    settings = read(**environment)
    secrets = load_secrets(settings)
    services = Services(
        settings,
        secrets,
        Addresses({"a": ("/run/a", 15001), "b": ("127.0.0.1", 15002)}, 15003, 15004, base),
        start=start,
    )
    fake = Fake()
    programs = [
        *(services.gateway(name, fake, fake) for name in settings.gateways),
        services.auth(fake),
        services.tenant(fake),
        *(services.patient(name, fake) for name in settings.patient_services),
        services.notifier(fake),
        services.worker(),
        services.mailbox(fake, fake),
    ]
    return secrets, {program.name: program.launch.environment for program in programs} | {
        "prepare": services.prepare("a").environment,
        "prepare-b": services.prepare("b").environment,
    }


NEEDED = {
    "JWT_SECRET": {"auth-service"},
    "SHARD_SECRET": {"tenant-service", "patient-service"},
    "ADMIN_PASSWORD": {"gateway"},
    "AUTH_DB_PASS": {"auth-service", "prepare", "prepare-b"},
    "TENANT_DB_PASS": {"tenant-service", "prepare", "prepare-b"},
    "POSTGRES_PASSWORD": {"prepare", "prepare-b"},
    "REDIS_PASS": {"auth-service", "notifier", "notifier-worker"},
}


def test_each_process_gets_only_the_secrets_it_needs(base):
    secrets, environments = launches(base, JWT_SECRET=GOOD, ADMIN_PASSWORD="a-good-password")
    for secret, needed in NEEDED.items():
        holders = {name for name, environment in environments.items() if secrets[secret] in environment.values()}
        assert holders == needed, secret


def test_settings_reach_the_services_and_foreign_addresses_do_not(base):
    _, environments = launches(
        base, TOKEN_EXPIRE_IN="30m", DB_HOST="elsewhere", REDIS_HOST="elsewhere", SERVER_C_PASS="pass of c"
    )
    for name, environment in environments.items():
        assert environment["TOKEN_EXPIRE_IN"] == "30m"
        assert environment["BCRYPT_COST"] == "10"
        assert "elsewhere" not in environment.values()
        assert ("SERVER_C_PASS" in environment) == (name == "tenant-service")
    assert environments["tenant-service"]["SHARD_SERVERS"] == "a=/run/a:15001,b=127.0.0.1:15002"
    for name in ("auth-service", "tenant-service"):
        assert (environments[name]["DB_HOST"], environments[name]["DB_PORT"]) == ("/run/a", "15001")
    assert launches(base, BCRYPT_COST="12")[1]["auth-service"]["BCRYPT_COST"] == "12"


def test_a_setting_that_is_no_secret_reaches_the_service_that_knows_it(base):
    asked = {"ADMIN_FAILURES_PER_ADDRESS": "3", "SHARD_CONNECTIONS": "40"}
    _, environments = launches(base, **asked)
    assert environments["gateway"]["ADMIN_FAILURES_PER_ADDRESS"] == "3"
    assert environments["patient-service"]["SHARD_CONNECTIONS"] == "40"
    assert "SHARD_CONNECTIONS" not in launches(base)[1]["patient-service"], "it knows its own default"


def test_each_gateway_is_told_of_all_patient_services_and_these_how_many_share_the_servers(base):
    _, environments = launches(base, GATEWAY_PROCESSES="2", PATIENT_PROCESSES="3")
    names = ("patient-service", "patient-service-2", "patient-service-3")
    for name in ("gateway", "gateway-2"):
        assert environments[name]["PATIENT_SERVICE_URL"] == ",".join(f"unix:{base}/{one}.sock" for one in names)
    assert {environments[name]["PATIENT_PROCESSES"] for name in names} == {"3"}
    assert launches(base)[1]["patient-service"]["PATIENT_PROCESSES"] == "1"


def test_mail_is_caught_unless_a_host_is_named(base):
    caught = launches(base, EMAIL_USER="someone@gmail.com", EMAIL_PASS="their-password")[1]["notifier-worker"]
    assert (caught["EMAIL_HOST"], caught["EMAIL_PORT"], caught["EMAIL_SECURITY"]) == ("127.0.0.1", "15004", "none")
    assert "EMAIL_PASS" not in caught
    assert (caught["EMAIL_TIMEOUT_S"], caught["RECLAIM_AFTER_S"]) == ("5", "10")
    assert launches(base, RECLAIM_AFTER_S="7")[1]["notifier"]["RECLAIM_AFTER_S"] == "7"
    sent = launches(base, EMAIL_HOST="smtp.example.com", EMAIL_USER="someone", EMAIL_PASS="p")[1]["notifier-worker"]
    assert (sent["EMAIL_HOST"], sent["EMAIL_USER"], sent["EMAIL_PASS"]) == ("smtp.example.com", "someone", "p")


def test_damaged_secrets_are_named(base):
    settings = read()
    settings.home.secrets.write_text("{")
    with pytest.raises(SettingsError, match="damaged"):
        load_secrets(settings)
    settings.home.secrets.write_text(json.dumps({"JWT_SECRET": GOOD}))
    assert load_secrets(settings)["JWT_SECRET"] == GOOD
