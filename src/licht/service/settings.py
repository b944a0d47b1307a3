"""Every setting of the service: one TOML file, then the environment. Unknown names are errors, secrets are masked."""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import platformdirs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from licht.core.errors import InvalidSettings
from licht.core.request import MAX_STEPS

ENVIRONMENT_PREFIX: Final = "LICHT_SERVICE__"
"""`LICHT_SERVICE__QUEUE__LEASE_S=20` sets `lease_s` of the table `[queue]`."""
MASK: Final = "********"
_IN_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]*://)[^/?#\s]*@", re.IGNORECASE)


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Credits = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Network = Annotated[str, AfterValidator(_network)]


class Section(BaseModel):
    """A table of the file: frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


class Server(Section):
    """Where the API listens and what it takes."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    public_url: Annotated[str, Field(pattern=r"^https?://[^/?#\s]+$")] | None = None
    """Address that clients see; without it, URLs repeat the Host header of the request."""
    trusted_proxies: tuple[str, ...] = ()
    """Peers whose X-Forwarded-Proto and X-Forwarded-Host are believed."""
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    """Names accepted in the Host header, without the port; "*" accepts all. The host of `public_url` always is."""
    max_body_bytes: Count = 128 * 2**20
    open_bodies_bytes: Count = 256 * 2**20
    """How much the bodies of all open requests may take together; beyond that, callers hear 503 and try again."""
    drain_s: Seconds = 30.0
    """How long everything may take to end after SIGTERM; less than 2 counts as 2. See `Server.drain`."""

    @property
    def drain(self) -> "Drain":
        """The same, shared out: a job in hand goes back while there is time to say so to its caller."""
        whole_s = max(self.drain_s, 2.0)
        margin_s = min(3.0, whole_s / 2)
        return Drain(whole_s - margin_s / 5, whole_s - margin_s * 2 / 3, whole_s - margin_s)


@dataclass(frozen=True, slots=True)
class Drain:
    """When, after SIGTERM, what has not ended is ended, in seconds: processes, calls that wait, pictures in hand."""

    processes_s: float
    calls_s: float
    pictures_s: float


class DatabaseSection(Section):
    """Where the rows are."""

    url: SecretStr | None = None
    """SQLAlchemy address of a PostgreSQL; without it, an SQLite file in the data folder."""


class StorageSection(Section):
    """Where the pictures are."""

    url: str | None = None
    """Any fsspec address, such as s3://bucket/prefix; without it, a folder in the data folder."""
    endpoint_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    """Address of an S3-compatible server other than Amazon's; keys come from AWS's usual variables and files."""
    keep_days: Positive = 30.0
    """How long jobs and pictures stay after their end; favourites stay longer."""
    keep_bytes: Count | None = None
    """How much all files may take together; above that the oldest go first."""


class QueueSection(Section):
    """How jobs are handed out."""

    lease_s: Positive = 15.0
    heartbeat_s: Positive = 3.0
    max_attempts: Count = 3
    max_deaths: Count = 3
    retry_delay_s: Seconds = 2.0
    priority_work: Positive = 100.0
    """How much work of others (megapixel-steps) one level of priority may overtake; older jobs thereby gain on new."""
    on_disconnect: Literal["cancel", "finish"] = "cancel"
    """What becomes of the job of a synchronous call whose caller hangs up."""


class KeysSection(Section):
    """What a key may do unless it says otherwise itself."""

    active_limit: Count = 24


class LinksSection(Section):
    """Result links."""

    ttl_s: Positive = 600.0
    secret: SecretStr | None = None
    """What links are signed with; without it, a file in the data folder."""


class WebhooksSection(Section):
    """Calls to the outside."""

    timeout_s: Positive = 20.0
    schedule_s: tuple[Seconds, ...] = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    """Waiting time before each attempt; after the last one the event is given up."""
    statuses: Literal["words", "bfl"] = "words"
    """Vocabulary of `status`: SUCCESS and FAILED, or Ready and Error. BFL's own form is not publicly settled."""


class FetchSection(Section):
    """What the service may be made to connect to: pictures by URL, webhooks."""

    enabled: bool = True
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (80, 443, 8080, 8443)
    allow_networks: tuple[Network, ...] = ()
    """Networks that are not public and may be reached all the same."""
    deadline_s: Positive = 20.0
    max_bytes: Count = 20 * 2**20


class InputsSection(Section):
    """Limits of pictures from outside."""

    max_bytes: Count = 20 * 2**20
    max_pixels: Count = 20_000_000
    min_side_px: Count = 64


class WorkerSection(Section):
    """What draws."""

    count: Annotated[int, Field(ge=0)] = 1
    model: str = "nano"
    variant: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    policy: Literal["off", "default", "strict"] = "default"
    engine: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    """`module:function` that opens another engine than Licht's own; for tests and load measurements."""
    ranker: Annotated[str, Field(pattern=r"^(likelihood|none|[\w.]+:\w+)$")] = "likelihood"
    """What chooses between several candidates: the model itself, by how well each fits the prompt (`likelihood`),
    nobody (`none`: one is drawn), or a `licht.core.protocols.Ranker` that `module:function` opens."""
    stall_s: Positive = 600.0
    """A worker that shows no progress for so long is ended and its job handed to another."""
    accept_non_commercial_licence: bool = False
    """Set by the operator after reading the licence of weights that are not free for every use."""


class RaySection(Section):
    """Workers as actors of a Ray cluster, for `licht serve --only ray`; `worker.count` of them."""

    address: str = "auto"
    """The cluster as Ray names it: auto is the one that this machine belongs to."""
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """What each of them takes of the cluster."""
    cpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class UpsamplingSection(Section):
    """Who writes prompts out at length for the tiers that want it, or for callers who ask."""

    url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """An endpoint that speaks the OpenAI chat protocol, such as http://localhost:11434/v1."""
    model: str = "default"
    key: SecretStr | None = None
    timeout_s: Positive = 60.0
    local: str | None = None
    """Instead of an endpoint, a language model that workers run themselves: `own` is the one that the model in use reads
    prompts with (only dev's can write), anything else the folder of a dev model."""
    keep: bool = False
    """Keep that language model in memory between jobs. Otherwise all weights give way to it, and it to them."""

    @property
    def configured(self) -> bool:
        """Whether anybody writes prompts out."""
        return self.url is not None or self.local is not None


class ProtocolSection(Section):
    """How the BFL protocol is spoken."""

    extended_statuses: bool = False
    """Say `Reasoning` while a prompt is written out and `Generating` while a job runs otherwise; several clients know only
    Pending, Ready and Error."""


class VerifySection(Section):
    """Who may ask where a picture comes from."""

    open: bool = False
    """Whoever asks, also without a key: one at a time, and only with the file itself."""
    wait_s: Positive = 60.0
    """How long a caller waits for a worker to look at the picture."""


class LoggingSection(Section):
    """What is written down."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    prompts: bool = False
    """Write the prompt of each accepted job too."""


class TelemetrySection(Section):
    """Traces over OTLP/HTTP."""

    endpoint: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    """Such as http://collector:4318/v1/traces; without it there are no traces."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The part of requests that is traced, where the caller has not decided."""


class Tier(Section):
    """One route of the API: a preset over the installed model, and its price.

    Price in credits of a picture: `first_mp`, each further output megapixel and each input megapixel `further_mp`.
    """

    first_mp: Credits
    further_mp: Credits
    max_references: Annotated[int, Field(ge=0, le=10)] = 10
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    step_factor: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1.0
    """Where nobody says how many steps: so many times the model's own."""
    candidates: Annotated[int, Field(ge=1, le=8)] = 1
    """So many pictures are drawn and the best one counts, by `worker.ranker`."""
    upsample: bool = False
    """Whether prompts are written out at length first, where that is configured and the caller does not say."""
    width: Annotated[int, Field(ge=64)] = 1024
    height: Annotated[int, Field(ge=64)] = 1024
    output_format: Literal["jpeg", "png", "webp"] = "jpeg"


class ConfiguredTier(Section):
    """What a settings file may change about a tier; what it leaves out stays as it is built in."""

    first_mp: Credits | None = None
    further_mp: Credits | None = None
    max_references: Annotated[int, Field(ge=0, le=10)] | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    step_factor: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    candidates: Annotated[int, Field(ge=1, le=8)] | None = None
    upsample: bool | None = None
    width: Annotated[int, Field(ge=64)] | None = None
    height: Annotated[int, Field(ge=64)] | None = None
    output_format: Literal["jpeg", "png", "webp"] | None = None


def built_in_tiers() -> dict[str, Tier]:
    """The routes of the hosted API over whatever is installed, with the published prices; 1 credit is 1 US cent.

    Steps and guidance that are None are the model's own: a distilled model runs as it was made.
    """
    klein_4b = Tier(first_mp=1.4, further_mp=0.1)
    klein_9b = Tier(first_mp=1.5, further_mp=0.2)
    pro = Tier(first_mp=3, further_mp=1.5, upsample=True)
    old = {"further_mp": 0.0, "output_format": "png"}
    return {
        "flux-2-pro": pro,
        "flux-2-pro-preview": pro,
        "flux-2-max": Tier(first_mp=7, further_mp=3, step_factor=2, candidates=4, upsample=True),
        "flux-2-flex": Tier(first_mp=5, further_mp=5, upsample=True),
        "flux-2-dev": Tier(first_mp=0, further_mp=0),
        "flux-2-klein-4b": klein_4b,
        "flux-2-klein-9b": klein_9b,
        "flux-2-klein-9b-preview": klein_9b,
        "flux-dev": Tier(first_mp=2.5, width=1024, height=768, further_mp=0, output_format="jpeg"),
        "flux-pro-1.1": Tier(first_mp=4, width=1024, height=768, further_mp=0, output_format="jpeg"),
        "flux-pro-1.1-ultra": Tier(first_mp=6, further_mp=0, output_format="jpeg"),
        "flux-pro-1.0-fill": Tier(first_mp=5, further_mp=0, output_format="jpeg"),
        "flux-pro-1.0-expand": Tier(first_mp=5, further_mp=0, output_format="jpeg"),
        "flux-kontext-pro": Tier.model_validate({"first_mp": 4, **old}),
        "flux-kontext-max": Tier.model_validate({"first_mp": 8, **old}),
    }


class Settings(Section):
    """All of it. Build it with `load_settings`."""

    data: Path
    server: Server = Server()
    database: DatabaseSection = DatabaseSection()
    storage: StorageSection = StorageSection()
    queue: QueueSection = QueueSection()
    keys: KeysSection = KeysSection()
    links: LinksSection = LinksSection()
    webhooks: WebhooksSection = WebhooksSection()
    fetch: FetchSection = FetchSection()
    inputs: InputsSection = InputsSection()
    worker: WorkerSection = WorkerSection()
    ray: RaySection = RaySection()
    upsampling: UpsamplingSection = UpsamplingSection()
    protocol: ProtocolSection = ProtocolSection()
    verify: VerifySection = VerifySection()
    logging: LoggingSection = LoggingSection()
    telemetry: TelemetrySection = TelemetrySection()
    tiers: dict[str, ConfiguredTier] = Field(default_factory=dict)

    @property
    def database_url(self) -> str:
        """SQLAlchemy's address of the database."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.data / 'licht.sqlite3'}"

    @property
    def storage_url(self) -> str:
        """Where the pictures are, as fsspec has it."""
        return self.storage.url or f"file://{self.data.absolute() / 'blobs'}"

    def effective_tiers(self) -> dict[str, Tier]:
        """The built-in tiers with the file's changes. Raises `InvalidSettings` for a new tier without a price."""
        tiers = built_in_tiers()
        for name, configured in self.tiers.items():
            changes = configured.model_dump(exclude_unset=True)
            base = tiers[name].model_dump() if name in tiers else {}
            tiers[name] = _validated(Tier, {**base, **changes}, f"tiers.{name}.")
        return tiers

    def masked(self) -> dict[str, Any]:
        """The effective settings as plain values, for people: secrets and passwords are masked."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        for section, name in (("database", "url"), ("links", "secret"), ("upsampling", "key")):
            if plain[section][name] is not None:
                plain[section][name] = MASK
        plain = _without_passwords(plain)
        plain["tiers"] = {name: tier.model_dump(mode="json") for name, tier in self.effective_tiers().items()}
        return plain

    def switched_off(self) -> list[str]:
        """What this installation does without, in words."""
        off = []
        if self.worker.policy == "off":
            off.append("safety policy: nothing is screened, marked or signed")
        if not self.fetch.enabled:
            off.append("fetching: pictures by URL and webhooks are refused")
        if self.fetch.allow_networks:
            off.append(f"protection of private networks: {', '.join(self.fetch.allow_networks)} can be reached")
        if "*" in self.server.allowed_hosts:
            off.append("Host check: any name is answered")
        if self.server.public_url is None:
            off.append("public URL: links repeat the Host header of each request")
        if self.telemetry.endpoint is None:
            off.append("traces: no telemetry.endpoint is set")
        if not self.upsampling.configured:
            off.append(
                "prompt upsampling: prompts are drawn as they are (no upsampling.url or upsampling.local is set)"
            )
        if self.worker.ranker == "none":
            off.append("candidates: tiers that choose between several draw one (worker.ranker is none)")
        if self.worker.count == 0:
            off.append("workers: none is started here")
        return off


def load_settings(
    file: Path | None, overrides: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the file, then the environment, then `overrides` (dotted names); later ones win.

    Raises `InvalidSettings` for anything that is unknown, mistyped or out of range.
    """
    values = _read(file) if file is not None else {}
    for name, text in _from_environment(os.environ if environment is None else environment):
        _put(values, name, text)
    for name, value in overrides.items():
        _put(values, name, value)
    if "data" not in values:
        values["data"] = platformdirs.user_data_path("licht") / "service"
    settings = _validated(Settings, values, "")
    settings.effective_tiers()
    if settings.upsampling.url is not None and settings.upsampling.local is not None:
        raise InvalidSettings(
            "upsampling.url and upsampling.local are both set; keep the one that is to write prompts out",
            field="upsampling.local",
        )
    if settings.server.open_bodies_bytes < settings.server.max_body_bytes:
        raise InvalidSettings(
            f"server.open_bodies_bytes is {settings.server.open_bodies_bytes}; use at least server.max_body_bytes "
            f"({settings.server.max_body_bytes}), so that one request of that size can be read",
            field="server.open_bodies_bytes",
        )
    if settings.queue.heartbeat_s * 2 > settings.queue.lease_s:
        raise InvalidSettings(
            f"queue.heartbeat_s is {settings.queue.heartbeat_s}; use at most half of queue.lease_s "
            f"({settings.queue.lease_s}), so that one late heartbeat loses nothing",
            field="queue.heartbeat_s",
        )
    return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise InvalidSettings(f"settings {file} cannot be read ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"settings {file} are not valid TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """(dotted name, text) of every variable with our prefix."""
    return [
        (name.removeprefix(ENVIRONMENT_PREFIX).replace("__", ".").lower(), text)
        for name, text in sorted(environment.items())
        if name.startswith(ENVIRONMENT_PREFIX)
    ]


def _put(values: dict[str, Any], dotted: str, value: object) -> None:
    """Set a value by its dotted name; text for a list is split at commas."""
    *path, last = dotted.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise InvalidSettings(f"{dotted} cannot be set: {part} is no table", field=dotted)
    field = _field(path, last)
    if isinstance(value, str) and field is not None and str(field.annotation).startswith("tuple"):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if last in values and isinstance(values[last], dict) and not isinstance(value, dict):
        raise InvalidSettings(f"{dotted} is set both as a value and as a table", field=dotted)
    values[last] = value


def _field(path: list[str], last: str) -> Any:  # noqa: ANN401 - pydantic's FieldInfo
    model: Any = Settings
    for part in path:
        field = model.model_fields.get(part)
        model = field.annotation if field is not None else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
    return model.model_fields.get(last)


def _validated(kind: type[S], values: Mapping[str, Any], prefix: str) -> S:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        name = prefix + ".".join(str(part) for part in found["loc"])
        if found["type"] == "extra_forbidden":
            message = f"setting {name} is unknown; see docs/serving.md for the names"
        else:
            message = f"setting {name}: {found['msg'].lower()}"
        raise InvalidSettings(message, field=name) from error


def _without_passwords(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """The same with user and password masked in whatever is an address: `https://name:word@host`."""
    if isinstance(value, dict):
        return {name: _without_passwords(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_passwords(each) for each in value]
    return _IN_ADDRESS.sub(rf"\1{MASK}@", value) if isinstance(value, str) else value
