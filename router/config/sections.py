"""The sections of the one TOML file; every key also as ``ROUTER_<SECTION>__<KEY>`` (docs/specification.md#keys)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from router.config.paths import expanded


def _default_data_dir() -> Path:
    try:
        return user_data_path("sealed-router", appauthor=False)
    except RuntimeError:
        # No home directory; ``rules`` refuses this one where it is used.
        return Path("~/.local/share/sealed-router")


class Section(BaseModel):
    """A section refuses keys that it does not know: a typo is an error, not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
HomePath = Annotated[Path, AfterValidator(expanded)]


class Server(Section):
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on; anything but loopback needs an identity service.",
    )
    api_port: Port = Field(8082, description="Port of the API; `serve` answers everything here.")
    ws_port: Port = Field(8083, description="Port of the WebSocket service; `serve` answers sockets here too.")
    admin_host: str = Field(
        "127.0.0.1",
        description="Address of the admin port: metrics and readiness by name, for your own network only.",
    )
    admin_port: Port = Field(
        8084, description="The admin port; where it is not set, `serve-ws` has 8085 and `process` 8086."
    )
    allowed_origins: list[str] = Field(
        [],
        description='Origins of pages and apps that may call from a browser (CORS and WebSocket); ["*"] is any.',
    )
    ping_seconds: Seconds = Field(
        20, description="How often a WebSocket is pinged; one that has not answered by the next time is cut off."
    )
    client_seconds: Seconds = Field(
        20,
        description="How long a client may take to send its headers, then its body, and to take any of an answer.",
    )
    keep_alive_seconds: int = Field(
        620,
        ge=1,
        description="How long a connection may be idle; longer than any proxy in front keeps one (Google's: 600 s).",
    )
    drain_seconds: Seconds = Field(25, description="How long a stopping process may take to finish.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto is text on a terminal, JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")


class Auth(Section):
    kind: Literal["embedded", "jwks"] | None = Field(
        None,
        description="embedded signs with a key of its own, for this machine only; jwks trusts an identity service. "
        "Where unset: jwks if one of the two URLs is set, else embedded.",
        examples=["jwks"],
    )
    identity_service_url: str | None = Field(
        None,
        description="The JWKS is discovered at its /.well-known/oauth-authorization-server.",
        examples=["https://id.example.com"],
    )
    jwks_url: str | None = Field(
        None, description="The JWKS, where it is named directly.", examples=["https://id.example.com/jwks.json"]
    )
    algorithms: list[str] = Field(["RS256"], min_length=1, description="Allowed signature algorithms, pinned.")
    issuer: str | None = Field(None, description="Required `iss`, where set.", examples=["https://id.example.com"])
    audience: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="Required `aud`, where set; of several, a token needs one.",
        examples=["router"],
    )
    leeway_seconds: float = Field(30, ge=0, description="Clock skew that is forgiven.")
    remember_seconds: Seconds = Field(
        300,
        description="A verified token is verified again after this, and the identity service is asked for its keys as "
        "often: a key that it withdraws opens nothing after this.",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve_kind(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("kind") is not None:
            return data
        trusts_other = data.get("identity_service_url") or data.get("jwks_url")
        return {**data, "kind": "jwks" if trusts_other else "embedded"}


class Ingress(Section):
    kind: Literal["embedded", "pubsub"] = Field(
        "embedded", description="What carries accepted envelopes; embedded is SQLite."
    )
    topic: str = Field("ingress-topic", description="Where accepted envelopes go.")
    subscription: str = Field("ingress-sub", description="Where the pipeline reads them.")
    dead_letter_topic: str = Field("ingress-topic-dlq", description="Where refused messages go.")
    max_attempts: int = Field(5, ge=1, description="Tries before a message is a dead letter.")
    ordering_shards: int = Field(
        16,
        ge=0,
        le=10_000,
        description="Pub/Sub: how many ordering keys all recipients share; 0 gives each recipient its own.",
    )
    pulls: int = Field(
        0,
        ge=0,
        le=100,
        description="Pub/Sub: Pull calls that wait at once, for the emulator; 0 is one StreamingPull.",
    )
    idempotency_secret: SecretStr | None = Field(
        None,
        description="Keys the ids derived from Idempotency-Key; the same on all API nodes. "
        "Embedded makes one in its data directory.",
        examples=["32 or more random characters"],
    )


class Online(Section):
    kind: Literal["embedded", "redis", "firestore"] = Field(
        "embedded", description="What holds presence and the hot queue; embedded is SQLite."
    )
    url: SecretStr | None = Field(
        None,
        description="The Redis: redis://… or rediss://…; several hosts with commas between them.",
        examples=["rediss://:password@redis.example.com:6379"],
    )
    mode: Literal["single", "sentinel", "cluster"] = Field("single", description="How the Redis is run.")
    sentinel_service: str = Field("mymaster", description="The name that the sentinels know the master by.")
    key_prefix: str = Field(
        "router",
        pattern=r"^[^{}\s]+$",
        description="Begins all keys and channels; two routers on one Redis differ in it.",
    )
    pool_size: int = Field(32, ge=1, description="Connections to Redis that one process may use at once.")
    timeout_seconds: Seconds = Field(3, description="A Redis that has not answered by then counts as down.")
    collection: str = Field("online-queue", description="The Firestore collection, where kind is firestore.")
    lease_seconds: Seconds = Field(60, description="A connection that is not renewed counts as gone after this.")
    heartbeat_seconds: Seconds = Field(20, description="How often leases are renewed.")
    repoke_seconds: Seconds = Field(15, description="Unfetched mail is poked again after this.")
    push_after_seconds: Seconds = Field(60, description="Unfetched mail is announced by a push command after this.")
    sweep_after_seconds: Seconds = Field(600, description="Unfetched mail moves to cold after this.")
    tombstone_seconds: Seconds = Field(
        3600, description="How long an id is remembered; a day where the sender gave an Idempotency-Key."
    )
    poke_topic: str = Field(
        "router-pokes", description="Begins the names of the nodes' Pub/Sub topics, where Firestore is online store."
    )
    durability: Literal["online-store", "write-through"] = Field(
        "online-store", description="write-through keeps a cold copy of each hot message from the start."
    )


class Cold(Section):
    kind: Literal["embedded", "firestore"] = Field(
        "embedded", description="What holds the cold queue; embedded is SQLite."
    )
    collection: str = Field("cold-queue", description="The Firestore collection.")
    retention_days: float = Field(30, gt=0, description="Mail that nobody fetches is deleted after this.")


class Push(Section):
    kind: Literal["embedded", "pubsub", "none"] = Field(
        "embedded", description="Where push commands go; embedded is an outbox, see `router outbox`."
    )
    topic: str = Field("push-notifications", description="The Pub/Sub topic of push commands.")
    format: Literal["command", "notification-request"] = Field(
        "command",
        description="The form of a push command. command has the recipient and the sealed envelope; "
        "notification-request is for a service that is told what to show, and has no envelope.",
    )


class Process(Section):
    port: Port | None = Field(
        None, description="Where `process` answers probes of liveness and readiness; nowhere if unset.", examples=[8080]
    )


class Embedded(Section):
    data_dir: HomePath = Field(
        default_factory=_default_data_dir,
        description="Where the embedded backend keeps its data; the platform's place for it if unset.",
        examples=["/var/lib/sealed-router"],
    )
    reserve_bytes: int = Field(
        268_435_456,
        ge=0,
        description="While less is free on the volume of data_dir, sends are refused, so that what was accepted can be "
        "fetched and acknowledged; at most a quarter of the volume. 0 is none.",
    )
    dead_letter_bytes: int = Field(
        1_073_741_824,
        ge=0,
        description="Bytes of dead letters that are kept, 1 KiB for each beside its body; beyond it, the oldest of the "
        "recipient who has most go. 0 is no limit.",
    )
    dead_letter_days: float = Field(30, gt=0, description="A dead letter is deleted after this.")


class Google(Section):
    project: str | None = Field(
        None, description="The Google Cloud project; GOOGLE_CLOUD_PROJECT if unset.", examples=["my-project"]
    )
    credentials_file: HomePath | None = Field(
        None,
        description="Service account key; application default credentials if unset.",
        examples=["/run/secrets/google.json"],
    )
    firestore_database: str = Field("(default)", description="The Firestore database, which must be there.")
    firestore_endpoint: str = Field(
        "firestore.googleapis.com:443",
        description="Where Firestore is asked; a location has its own, as nam5-firestore.googleapis.com.",
    )
    pubsub_endpoint: str = Field(
        "pubsub.googleapis.com:443",
        description="Where Pub/Sub is asked; with API nodes in several regions one region's, or mail has no order.",
    )
    channels: int = Field(
        2, ge=1, le=64, description="Connections to each Google service; each carries 100 calls at a time."
    )


class Limits(Section):
    envelope_bytes: int = Field(262_144, ge=1, description="Decoded bytes of the three opaque fields.")
    send_rate: float = Field(50, ge=0, description="Sends per second and sender; 0 is no limit.")
    send_burst: int = Field(200, ge=1, description="Sends that a sender may make at once.")
    pair_rate: float = Field(
        5, ge=0, description="Sends of 16 KiB per second of a sender to one recipient; 0 is no limit."
    )
    pair_burst: int = Field(1000, ge=1, description="Sends that a sender may make to one recipient at once.")
    outbound_bytes: int = Field(
        1_073_741_824,
        ge=0,
        description="Bytes that a sender may send to all recipients at once, of envelopes and 1 KiB for each; "
        "0 is no limit.",
    )
    outbound_bytes_per_second: float = Field(
        16_384, gt=0, description="How fast that budget comes back, in bytes a second."
    )
    work_rate: float = Field(
        25_000,
        ge=0,
        description="Work per second and user over all routes, in units of about 10 µs of a core; 0 is no limit.",
    )
    work_burst: int = Field(1_000_000, ge=1, description="Units of work that a user may ask for at once.")
    queue_messages: int = Field(100_000, ge=1, description="Messages that may wait for one recipient.")
    queue_bytes: int = Field(
        1_073_741_824, ge=1, description="Bytes of envelopes, as they are stored, that may wait for one recipient."
    )
    inbound_bytes: int = Field(
        134_217_728, ge=0, description="Bytes of envelopes that may come to one recipient at once; 0 is no limit."
    )
    inbound_bytes_per_second: float = Field(
        131_072, gt=0, description="How fast that budget comes back, in bytes a second."
    )
    connections_per_user: int = Field(20, ge=1, description="Live WebSockets of one user.")
    ephemeral_seconds: Seconds = Field(10, description="An ephemeral message is dropped after this.")


class Config(Section):
    """The whole configuration. Immutable; made once at start and handed to the factory."""

    server: Server = Server()
    auth: Auth = Auth()
    ingress: Ingress = Ingress()
    online: Online = Online()
    cold: Cold = Cold()
    push: Push = Push()
    process: Process = Process()
    embedded: Embedded = Field(default_factory=Embedded)
    google: Google = Google()
    limits: Limits = Limits()

    @property
    def uses_database(self) -> bool:
        """Whether some of the backends keep their data in the embedded database."""
        return "embedded" in (self.ingress.kind, self.online.kind, self.cold.kind, self.push.kind)

    @property
    def uses_pubsub(self) -> bool:
        """Whether Pub/Sub carries something; pokes, where Firestore is the online store."""
        return "pubsub" in (self.ingress.kind, self.push.kind) or self.online.kind == "firestore"

    @property
    def uses_firestore(self) -> bool:
        return "firestore" in (self.online.kind, self.cold.kind)

    @property
    def uses_data_dir(self) -> bool:
        """Whether ``embedded.data_dir`` is needed: for the database, or for the key that signs tokens."""
        return self.uses_database or self.auth.kind == "embedded"


def address(scheme: str, host: str, port: int) -> str:
    """The URL of a host's port."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


Service = Literal["serve", "serve-api", "serve-ws", "process"]
