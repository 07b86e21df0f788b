"""Settings: all faults at once, no value shown, environment before file before `.env`."""

import pytest
from pydantic import Field

from shared.settings import DurationS, ServiceSettings, SigningSecret, load, parse_duration_s, split_secrets

SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978"
OLDER = "a0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f50617"


class ExampleSettings(ServiceSettings):
    token_expire_in: DurationS = Field(default=3600, description="Life of a token in seconds.")
    extra_secret: SigningSecret = Field(description="Another secret.")


@pytest.fixture(autouse=True)
def empty_surroundings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("GATEWAY_SECRET", "EXTRA_SECRET", "TOKEN_EXPIRE_IN", "SERVICE_FD", "HOST"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


@pytest.fixture
def secrets(monkeypatch):
    monkeypatch.setenv("GATEWAY_SECRET", SECRET)
    monkeypatch.setenv("EXTRA_SECRET", SECRET)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1hr", 3600), ("30m", 1800), ("900", 900), ("7d", 604800), (" 2 hours ", 7200), (60, 60)]
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5h", "1w", "hr", "1 h 30 m", None])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="no duration"):
        parse_duration_s(text)


def test_every_fault_is_told_at_once_and_no_value_is_shown(monkeypatch, capsys):
    monkeypatch.setenv("GATEWAY_SECRET", "short-but-private")
    monkeypatch.setenv("TOKEN_EXPIRE_IN", "soonish")
    with pytest.raises(SystemExit) as exit_status:
        load(ExampleSettings)
    told = capsys.readouterr().err
    assert exit_status.value.code == 78
    assert all(name in told for name in ("GATEWAY_SECRET", "EXTRA_SECRET", "TOKEN_EXPIRE_IN"))
    assert "short-but-private" not in told
    assert "soonish" not in told


@pytest.mark.parametrize("sample", ["your_secret_key_that_is_long_enough_to_pass", "change-me" * 8, "a" * 64, ",", ""])
def test_a_sample_secret_is_refused(monkeypatch, secrets, sample):
    monkeypatch.setenv("EXTRA_SECRET", sample)
    with pytest.raises(SystemExit):
        load(ExampleSettings)


def test_a_list_of_secrets_is_newest_first_and_each_must_be_long(monkeypatch, secrets):
    monkeypatch.setenv("EXTRA_SECRET", f"{SECRET}, {OLDER}")
    assert split_secrets(load(ExampleSettings).extra_secret) == (SECRET.encode(), OLDER.encode())
    monkeypatch.setenv("EXTRA_SECRET", f"{SECRET},short")
    with pytest.raises(SystemExit):
        load(ExampleSettings)


def test_a_secret_is_not_in_the_settings_text(secrets):
    assert SECRET not in repr(load(ExampleSettings))


def test_environment_beats_file_beats_dotenv(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text(f"GATEWAY_SECRET={OLDER}\nEXTRA_SECRET={OLDER}\nTOKEN_EXPIRE_IN = 1hr\n")
    (tmp_path / "from-file").write_text(f"{SECRET}\n")
    monkeypatch.setenv("EXTRA_SECRET_FILE", str(tmp_path / "from-file"))
    settings = load(ExampleSettings)
    assert settings.gateway_keys == (OLDER.encode(),)
    assert split_secrets(settings.extra_secret) == (SECRET.encode(),)
    assert settings.token_expire_in == 3600
    monkeypatch.setenv("EXTRA_SECRET", OLDER)
    assert split_secrets(load(ExampleSettings).extra_secret) == (OLDER.encode(),)


def test_a_secret_file_that_is_missing_is_named(monkeypatch, secrets, capsys, tmp_path):
    monkeypatch.delenv("EXTRA_SECRET")
    monkeypatch.setenv("EXTRA_SECRET_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit):
        load(ExampleSettings)
    assert "EXTRA_SECRET_FILE" in capsys.readouterr().err
