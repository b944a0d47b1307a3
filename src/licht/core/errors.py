"""The one error tree.

Every message is a single line that says what was wrong, what was expected and what to do. `code` is stable and meant
for programs; `exit_code` is what the command line returns.
"""

from typing import ClassVar, Final

_LONGEST_MESSAGE: Final = 1000


class LichtError(Exception):
    """Base of every error that Licht raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, field: str | None = None) -> None:
        """Keep a one-line message and, where one input is to blame, the dotted path of that field."""
        super().__init__(_one_line(message))
        self.field = field

    @property
    def message(self) -> str:
        """The one line for people."""
        return str(self.args[0])


class InvalidRequest(LichtError):
    """A request that cannot be carried out as it stands: a size, a seed, a combination of options."""

    code = "invalid_request"
    exit_code = 2


class InvalidPrompt(InvalidRequest):
    """A prompt that cannot be used: broken structured JSON, a mention of a reference that is not there."""

    code = "invalid_prompt"


class InvalidImage(InvalidRequest):
    """An input picture that is unreadable, too small, too large, too elongated or animated."""

    code = "invalid_image"


class InvalidSettings(InvalidRequest):
    """A setting that is unknown, mistyped or out of range."""

    code = "invalid_settings"


class UnknownModel(InvalidRequest):
    """A model name, folder or file that is not there."""

    code = "unknown_model"


class AmbiguousModel(InvalidRequest):
    """A checkpoint whose kind its shapes cannot tell; the message names the choices."""

    code = "ambiguous_model"


class InvalidCheckpoint(LichtError):
    """A checkpoint that is truncated, incomplete, mis-shaped, non-finite or of an unknown layout."""

    code = "invalid_checkpoint"
    exit_code = 2


class OutputExists(InvalidRequest):
    """The output path is taken; nothing is overwritten in silence."""

    code = "output_exists"


class InvalidOutput(InvalidRequest):
    """An output path where no picture can go: an unknown suffix, a missing folder, no permission."""

    code = "invalid_output"


class OutputFailed(LichtError):
    """The result could not be written although its path looked good: no space, a disk that fails."""

    code = "output_failed"
    exit_code = 2


class OutputStopped(OutputFailed):
    """The same after some of several results had been written; those stay."""

    code = "output_stopped"
    exit_code = 1


class Refused(LichtError):
    """The policy refuses this request or this result."""

    code = "refused"
    exit_code = 2


class NotAvailable(LichtError):
    """Something that was asked for is not installed or not configured here."""

    code = "not_available"
    exit_code = 2


class EndpointFailed(LichtError):
    """A server that was asked for something is not there, too slow, or answers with something else."""

    code = "endpoint_failed"
    exit_code = 2


class NotAuthenticated(LichtError):
    """A key that is missing, unknown, expired or revoked."""

    code = "not_authenticated"
    exit_code = 2


class NotPermitted(LichtError):
    """A key that is good, for something else."""

    code = "not_permitted"
    exit_code = 2


class InsufficientCredits(LichtError):
    """A key that cannot pay for what it asks for."""

    code = "insufficient_credits"
    exit_code = 2


class TooManyJobs(LichtError):
    """A key with as many active jobs as it may have; it can try again later."""

    code = "too_many_jobs"


class IdempotencyConflict(LichtError):
    """An idempotency key that was used for another request."""

    code = "idempotency_conflict"
    exit_code = 2


class IdempotencyRunning(LichtError):
    """An idempotency key whose first request has no answer yet that could be repeated."""

    code = "idempotency_running"


class UnknownJob(LichtError):
    """A job that is not there, or not for this key."""

    code = "unknown_job"
    exit_code = 2


class NotServed(LichtError):
    """A route of the hosted API that this service does not have; the message says what comes nearest."""

    code = "not_served"


class UnknownFinetune(LichtError):
    """An adapter of the hosted API that is not here."""

    code = "unknown_finetune"


class LeaseLost(LichtError):
    """A worker that held on to a job after it had been given to another; its result counts for nothing."""

    code = "lease_lost"


class DoesNotFit(LichtError):
    """No way of running the request fits into the memory; `table` is the plan that says why, line by line."""

    code = "does_not_fit"
    exit_code = 3

    def __init__(self, message: str, table: tuple[str, ...] = (), *, field: str | None = None) -> None:
        """Keep the plan for whoever shows it."""
        super().__init__(message, field=field)
        self.table = table


class OutOfMemory(LichtError):
    """The device ran out of memory in spite of the plan."""

    code = "out_of_memory"


def _one_line(message: str) -> str:
    """`message` as one printable line.

    Names of files and tensors come from outside: escape sequences, broken text and endless names stay harmless in a
    terminal, a log and a JSON document.
    """
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    half = _LONGEST_MESSAGE // 2
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[: half - 3]} ... {line[-half + 2 :]}"
