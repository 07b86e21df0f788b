"""Settings: what is refused at start, and the times that have to fit into each other."""

import pytest
from notifier_rig import settings
from pydantic import ValidationError

from notifier.config import Settings


def test_the_originals_mail_settings_lead_to_gmail_with_starttls():
    found = Settings(_env_file=None, gateway_secret="b7c1f0e4a95d4c3e8f2a6d1b0c9e8f7a", email_user="clinic@gmail.com")
    assert (found.email_host, found.email_port, found.email_security) == ("smtp.gmail.com", 587, "starttls")
    assert found.sender == "clinic@gmail.com"


@pytest.mark.parametrize(
    "sender", ["", "nobody", "a@b@c", "a@b.example, c@d.example", "A <a@b.example>", "a@b\r\nX: y"]
)
def test_mails_must_come_from_one_bare_address(sender: str):
    with pytest.raises(ValidationError, match="EMAIL_FROM"):
        settings(EMAIL_FROM=sender)


@pytest.mark.parametrize("fault", [{"EMAIL_SECURITY": "ssl"}, {"PUBLIC_URL": "gowebbo"}, {"EMAIL_TIMEOUT_S": 0}])
def test_a_faulty_setting_is_refused(fault: dict[str, object]):
    with pytest.raises(ValidationError):
        settings(**fault)


def test_no_worker_tries_an_event_while_another_may_be_at_it():
    """Dialogue < lock < redelivery, whatever the limit is."""
    for timeout_s in (1, 20, 120):
        found = settings(EMAIL_TIMEOUT_S=timeout_s)
        assert found.email_timeout_s < found.sending_lock_s < found.redelivery_after_s


def test_a_password_with_special_characters_survives_the_redis_url():
    assert settings(REDIS_PASS="p@ss/w:rd?#").redis_url == "redis://:p%40ss%2Fw%3Ard%3F%23@127.0.0.1:6379/0"


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())
