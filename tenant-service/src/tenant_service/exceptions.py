"""What can go wrong with a shard, by name. Three lines each; rendered by shared.errors."""

from shared.errors import NotFoundError, ServiceError, UnavailableError


class ShardUnknownError(NotFoundError):
    error, title = "shard-unknown", "The practice has no shard"


class ShardUndoneError(ServiceError):
    error, status, title = "shard-undone", 409, "The sign-up of this practice was undone"


class ShardNotReadyError(UnavailableError):
    error, title = "shard-not-ready", "The practice's shard is not ready yet"


class ShardQuarantinedError(UnavailableError):
    error, title = "shard-quarantined", "The practice's shard is in quarantine"


class NoServerAvailableError(UnavailableError):
    error, title = "no-shard-server", "No shard server can take a practice right now"


class ProvisioningBusyError(UnavailableError):
    error, title = "provisioning-busy", "Too many shards are being made right now"


class ShardServerUnavailableError(UnavailableError):
    error, title = "shard-server-unavailable", "The shard server is not available right now"


class JobUnknownError(NotFoundError):
    error, title = "job-unknown", "There is no such job"


class JobUnderWayError(ServiceError):
    error, status, title = "job-under-way", 409, "Another job of this kind is under way"


class TemplateDriftedError(Exception):
    """A fresh template isn't what its migrations are described to lead to; the message is the difference."""


class ServerUnknownError(NotFoundError):
    error, title = "server-unknown", "There is no shard server of this key"


class ServerConflictError(ServiceError):
    error, status, title = "server-conflict", 409, "This contradicts what is known of the shard servers"


class ServerUnsuitableError(ServiceError):
    error, status, title = "server-unsuitable", 422, "This server can't hold shards as it is"


class PreparationRefusedError(Exception):
    """The server can't be prepared; the message says what is missing."""


class FenceLeakyError(Exception):
    """A session of the shard's role could not be ended."""


class DeedRefusedError(Exception):
    """A job can't be done as things are; the message says why, for the operator."""


class DeedPostponedError(Exception):
    """A job can't go on now; it is tried again."""


class MoveRefusedError(ServiceError):
    error, status, title = "move-refused", 409, "This practice can't be moved there"


class CopyUnknownError(NotFoundError):
    error, title = "copy-unknown", "The practice has no such copy"


class ShardStampedOtherwiseError(ServiceError):
    error, status, title = "shard-stamped-otherwise", 409, "The database in the directory is not the practice's"


class ExportRefusedError(ServiceError):
    error, status, title = "export-refused", 409, "The export can't be written"


class ErasureUnfinishedError(UnavailableError):
    error, title = "erasure-unfinished", "Something of the practice was copied meanwhile"
