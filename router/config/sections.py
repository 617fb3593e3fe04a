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
        description="Address to listen on. Any address but loopback needs an identity service.",
    )
    api_port: Port = Field(8082, description="Port of the API. `serve` answers everything on it, WebSockets included.")
    ws_port: Port = Field(
        8083, description="Port of the WebSocket service. `serve` answers WebSockets on this port too."
    )
    admin_host: str = Field(
        "127.0.0.1",
        description="Address of the admin port (metrics, readiness of each dependency), for your own network only.",
    )
    admin_port: Port = Field(
        8084, description="The admin port. If unset, `serve-ws` uses 8085 and `process` uses 8086."
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        1,
        description="Number of processes that serve the API and WebSockets on the same ports, for `serve`, `serve-api` "
        "and `serve-ws`. auto is the number of cores that may be used.",
    )
    allowed_origins: list[str] = Field(
        [],
        description='Origins that may call from a browser, by CORS and WebSocket. ["*"] allows any origin.',
    )
    ping_seconds: Seconds = Field(
        20,
        description="Interval of pings to a WebSocket. One that has not answered by the next ping is disconnected.",
    )
    client_seconds: Seconds = Field(
        20,
        description="Timeout for a client to send its headers, to send its body, and to read any part of a response.",
    )
    keep_alive_seconds: int = Field(
        620,
        ge=1,
        description="How long a connection may be idle. Set it longer than any proxy in front does (Google's: 600 s).",
    )
    drain_seconds: Seconds = Field(25, description="Time that a stopping process has to finish its work.")
    log_format: Literal["auto", "json", "text", "google"] = Field(
        "auto",
        description="auto writes text to a terminal and JSON elsewhere. google is JSON with the field names of Google "
        "Cloud Logging; auto is google on Cloud Run.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of what is logged."
    )
    access_log: Literal["off", "on"] = Field(
        "off", description="on logs each request when it ends: a line of 300 bytes, without user, query and body."
    )


class Auth(Section):
    kind: Literal["embedded", "jwks"] | None = Field(
        None,
        description="embedded signs tokens with its own key, for this machine only; jwks trusts an identity service. "
        "If unset: jwks if one of the two URLs is set, else embedded.",
        examples=["jwks"],
    )
    identity_service_url: str | None = Field(
        None,
        description="URL of the identity service; its /.well-known/oauth-authorization-server names the JWKS.",
        examples=["https://id.example.com"],
    )
    jwks_url: str | None = Field(
        None, description="URL of the JWKS, to skip discovery.", examples=["https://id.example.com/jwks.json"]
    )
    algorithms: list[str] = Field(
        ["RS256"], min_length=1, description="Allowed signature algorithms. A token with any other is rejected."
    )
    issuer: str | None = Field(
        None,
        description="Required `iss` of a token. If unset, `iss` is not checked.",
        examples=["https://id.example.com"],
    )
    audience: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="Required `aud` of a token; of a list, one is enough. If unset, `aud` is not checked.",
        examples=["router"],
    )
    leeway_seconds: float = Field(30, ge=0, description="Clock skew that is tolerated when a token is verified.")
    remember_seconds: Seconds = Field(
        300,
        description="How long a verified token is cached, and how often the identity service is asked for its keys. "
        "A key that it withdraws is rejected after this.",
    )

    @property
    def key_source(self) -> str:
        """Who says which keys tokens are signed with: ``embedded``, which is the router itself, or ``jwks``."""
        return str(self.kind)

    @property
    def signs_tokens(self) -> bool:
        """Whether the router signs tokens itself, for this machine only, with a key in ``embedded.data_dir``."""
        return self.kind == "embedded"

    @model_validator(mode="before")
    @classmethod
    def _resolve_kind(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("kind") is not None:
            return data
        trusts_other = data.get("identity_service_url") or data.get("jwks_url")
        return {**data, "kind": "jwks" if trusts_other else "embedded"}


class Ingress(Section):
    kind: Literal["embedded", "pubsub"] = Field(
        "embedded", description="Backend that carries accepted messages to the pipelines. embedded is SQLite."
    )
    topic: str = Field("ingress-topic", description="Pub/Sub topic for accepted messages.")
    subscription: str = Field("ingress-sub", description="Pub/Sub subscription that the pipelines read.")
    dead_letter_topic: str = Field("ingress-topic-dlq", description="Pub/Sub topic for dead letters.")
    max_attempts: int = Field(5, ge=1, description="Attempts to process a message before it becomes a dead letter.")
    ordering_shards: int = Field(
        16,
        ge=0,
        le=10_000,
        description="Pub/Sub: number of ordering keys that all recipients share. 0 gives each recipient its own.",
    )
    pulls: int = Field(
        0,
        ge=0,
        le=100,
        description="Pub/Sub: Pull calls that wait at the same time, for the emulator only. 0 uses one StreamingPull.",
    )
    idempotency_secret: SecretStr | None = Field(
        None,
        description="HMAC secret that derives message ids from Idempotency-Key. Must be identical on all API nodes. "
        "The embedded backend creates one in its data directory.",
        examples=["32 or more random characters"],
    )


class Online(Section):
    kind: Literal["embedded", "redis", "firestore"] = Field(
        "embedded", description="Backend that holds presence and the hot queue. embedded is SQLite."
    )
    url: SecretStr | None = Field(
        None,
        description="URL of the Redis: redis://… or rediss://…. Separate several hosts with commas.",
        examples=["rediss://:password@redis.example.com:6379"],
    )
    mode: Literal["single", "sentinel", "cluster"] = Field("single", description="How the Redis is deployed.")
    sentinel_service: str = Field("mymaster", description="Name of the master as the sentinels know it.")
    key_prefix: str = Field(
        "router",
        pattern=r"^[^{}\s]+$",
        description="Prefix of all Redis keys and channels. Must be unique for each router that shares a Redis.",
    )
    pool_size: int = Field(32, ge=1, description="Maximum number of connections to Redis of one process.")
    timeout_seconds: Seconds = Field(
        3, description="Timeout of a request to Redis. Without an answer by then, Redis counts as down."
    )
    collection: str = Field("online-queue", description="Firestore collection, if kind is firestore.")
    lease_seconds: Seconds = Field(
        60, description="A WebSocket whose lease was not renewed for this long counts as gone."
    )
    heartbeat_seconds: Seconds = Field(
        20, description="Interval at which a process renews the leases of its WebSockets."
    )
    repoke_seconds: Seconds = Field(
        15, description="A user with hot mail that is still unfetched after this is poked again."
    )
    push_after_seconds: Seconds = Field(
        60, description="Hot mail that is still unfetched after this is announced by a push command."
    )
    sweep_after_seconds: Seconds = Field(600, description="Hot mail that is still unfetched after this moves to cold.")
    tombstone_seconds: Seconds = Field(
        3600,
        description="How long the id of a finished message is remembered; at least a day if it has an Idempotency-Key.",
    )
    poke_topic: str = Field(
        "router-pokes", description="Prefix of the names of the nodes' Pub/Sub topics, if kind is firestore."
    )
    durability: Literal["online-store", "write-through"] = Field(
        "online-store", description="write-through also keeps a copy of each hot message in cold."
    )

    @property
    def poked_by(self) -> str:
        """The kind of backend that carries the pokes: Firestore has none of its own."""
        return "pubsub" if self.kind == "firestore" else self.kind


class Cold(Section):
    kind: Literal["embedded", "firestore"] = Field(
        "embedded", description="Backend that holds the cold queue. embedded is SQLite."
    )
    collection: str = Field("cold-queue", description="Firestore collection, if kind is firestore.")
    retention_days: float = Field(30, gt=0, description="Mail in cold that is older than this is deleted.")


class Push(Section):
    kind: Literal["embedded", "pubsub", "none"] = Field(
        "embedded", description="Backend that takes push commands. embedded is an outbox that `router outbox` reads."
    )
    topic: str = Field("push-notifications", description="Pub/Sub topic for push commands.")
    format: Literal["command", "notification-request"] = Field(
        "command",
        description="Format of a push command. command holds the recipient and the sealed envelope; "
        "notification-request is for a service that is told what to show, and holds no envelope.",
    )


class Process(Section):
    port: Port | None = Field(
        None,
        description="Port where `process` answers liveness and readiness probes. If unset, it answers none.",
        examples=[8080],
    )


class Embedded(Section):
    data_dir: HomePath = Field(
        default_factory=_default_data_dir,
        description="Directory for the data of the embedded backend. If unset, the platform's default for data.",
        examples=["/var/lib/sealed-router"],
    )
    reserve_bytes: int = Field(
        268_435_456,
        ge=0,
        description="Free space to keep on the volume of data_dir, at most a quarter of the volume. With less, sends "
        "are refused, so that accepted messages can still be fetched and acknowledged. 0 turns this off.",
    )
    dead_letter_bytes: int = Field(
        1_073_741_824,
        ge=0,
        description="Maximum size of all dead letters: their bodies plus 1 KiB each. Beyond it, the oldest ones of the "
        "recipient with the most bytes are deleted. 0 means no limit.",
    )
    dead_letter_days: float = Field(30, gt=0, description="A dead letter is deleted after this.")
    remember_acknowledged: bool = Field(
        False,
        description="Remember the id of each message for online.tombstone_seconds after it has left the queues, as "
        "other backends do, so that `router trace` can say when it was acknowledged. This costs a write for each "
        "message. If false, and the data directory holds everything, only ids with an Idempotency-Key are remembered.",
    )


class Google(Section):
    project: str | None = Field(
        None, description="Google Cloud project. If unset, GOOGLE_CLOUD_PROJECT names it.", examples=["my-project"]
    )
    credentials_file: HomePath | None = Field(
        None,
        description="File with a service account key. If unset, application default credentials are used.",
        examples=["/run/secrets/google.json"],
    )
    firestore_database: str = Field("(default)", description="Name of the Firestore database, which must exist.")
    firestore_endpoint: str = Field(
        "firestore.googleapis.com:443",
        description="Endpoint of Firestore. Each location has its own, such as nam5-firestore.googleapis.com.",
    )
    pubsub_endpoint: str = Field(
        "pubsub.googleapis.com:443",
        description="Endpoint of Pub/Sub. With API nodes in several regions, set the endpoint of one region on all of "
        "them, or messages lose their order.",
    )
    channels: int = Field(
        2, ge=1, le=64, description="Connections to each Google service. One carries 100 requests at a time."
    )


class Limits(Section):
    envelope_bytes: int = Field(
        262_144, ge=1, description="Maximum size of an envelope: the decoded bytes of its three opaque fields."
    )
    send_rate: float = Field(50, ge=0, description="Sends per second of one sender. 0 means no limit.")
    send_burst: int = Field(200, ge=1, description="Sends that one sender may make at once.")
    pair_rate: float = Field(
        5,
        ge=0,
        description="Sends per second of one sender to one recipient; each 16 KiB count as one. 0 means no limit.",
    )
    pair_burst: int = Field(1000, ge=1, description="Sends that one sender may make to one recipient at once.")
    outbound_bytes: int = Field(
        1_073_741_824,
        ge=0,
        description="Budget of bytes of one sender for all recipients; a message costs its envelope plus 1 KiB. "
        "0 means no limit.",
    )
    outbound_bytes_per_second: float = Field(16_384, gt=0, description="How fast the budget of outbound_bytes refills.")
    work_rate: float = Field(
        25_000,
        ge=0,
        description="Work per second of one user over all routes, in units of about 10 µs of a core. 0 means no limit.",
    )
    work_burst: int = Field(1_000_000, ge=1, description="Units of work that one user may request at once.")
    queue_messages: int = Field(100_000, ge=1, description="Maximum number of messages that wait for one recipient.")
    queue_bytes: int = Field(
        1_073_741_824, ge=1, description="Maximum bytes of envelopes, as stored, that wait for one recipient."
    )
    inbound_bytes: int = Field(
        134_217_728,
        ge=0,
        description="Budget of bytes for envelopes to one recipient, from all senders. 0 means no limit.",
    )
    inbound_bytes_per_second: float = Field(131_072, gt=0, description="How fast the budget of inbound_bytes refills.")
    connections_per_user: int = Field(20, ge=1, description="Maximum number of live WebSockets of one user.")
    ephemeral_seconds: Seconds = Field(10, description="An ephemeral message that is older than this is dropped.")


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
        return "pubsub" in (self.ingress.kind, self.online.poked_by, self.push.kind)

    @property
    def uses_firestore(self) -> bool:
        return "firestore" in (self.online.kind, self.cold.kind)

    @property
    def tolerated_skew_seconds(self) -> float:
        """How far clocks may be apart before something goes wrong."""
        return min(self.auth.leeway_seconds, self.limits.ephemeral_seconds, self.online.lease_seconds / 4)

    @property
    def uses_data_dir(self) -> bool:
        """Whether ``embedded.data_dir`` is needed: for the database, or for the key that signs tokens."""
        return self.uses_database or self.auth.signs_tokens


def address(scheme: str, host: str, port: int) -> str:
    """The URL of a host's port."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


Service = Literal["serve", "serve-api", "serve-ws", "process"]
