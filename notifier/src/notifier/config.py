"""The notifier's settings; the stream's consumer and the worker read the same ones."""

from typing import Literal, Self
from urllib.parse import quote

from pydantic import Field, SecretStr, field_validator, model_validator

from notifier.addresses import bare_address
from shared.settings import ServiceSettings

RECEIPT_TIMEOUT_S = 3
RESEND_MARGIN_S = 5
"""Reserve of a lock over the work that it protects, and of a redelivery over the lock."""


class Settings(ServiceSettings):
    """Environment of `python -m notifier` and `python -m notifier.worker`."""

    port: int = Field(default=5004, description="Port for health and metrics of the stream's consumer.")
    redis_host: str = Field(default="127.0.0.1", description="Redis server.")
    redis_port: int = Field(default=6379, description="Its port.")
    redis_pass: SecretStr = Field(default=SecretStr(""), description="Its password; empty for none.")
    auth_service_url: str = Field(
        default="http://127.0.0.1:5001", description="Takes the receipts: http://host:port or unix:/path."
    )
    public_url: str = Field(
        default="http://localhost:5000", pattern=r"^https?://[^\s]+$", description="Where people reach the gateway."
    )
    email_host: str = Field(default="smtp.gmail.com", description="Mail server.")
    email_port: int = Field(default=587, description="Its port: 587 for starttls, 465 for tls.")
    email_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="none: no encryption and therefore no log-in; for a mail catcher."
    )
    email_user: str = Field(default="", description="Log-in name at the mail server; empty for no log-in.")
    email_pass: SecretStr = Field(default=SecretStr(""), description="Its password (at Gmail: an app password).")
    email_from: str = Field(default="", description="Bare address that mails come from; default EMAIL_USER.")
    email_timeout_s: int = Field(default=20, ge=1, le=120, description="Seconds for one whole SMTP dialogue.")
    worker_alive_file: str = Field(
        default="", description="File that the worker touches every 10 s while it works, for a health check; or none."
    )
    reclaim_after_s: int = Field(
        default=30, ge=1, description="Seconds after which an event that a dead consumer took is taken over."
    )

    @field_validator("public_url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @model_validator(mode="after")
    def _sender_is_an_address(self) -> Self:
        try:
            bare_address(self.sender)
        except ValueError as fault:
            raise ValueError("EMAIL_FROM must be a bare e-mail address, or empty and EMAIL_USER be one") from fault
        return self

    @property
    def sender(self) -> str:
        """The address that mails come from."""
        return self.email_from or self.email_user

    @property
    def redis_url(self) -> str:
        """For redis-py and Celery. Holds the password: never log it."""
        password = self.redis_pass.get_secret_value()
        credentials = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{credentials}{self.redis_host}:{self.redis_port}/0"

    @property
    def sending_lock_s(self) -> int:
        """How long one worker may be at an event before another may try it."""
        return self.email_timeout_s + RESEND_MARGIN_S

    @property
    def redelivery_after_s(self) -> int:
        """After this time Celery hands out again what a killed worker had taken: later than the lock it left behind."""
        return self.sending_lock_s + RESEND_MARGIN_S
