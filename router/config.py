"""The typed configuration: one TOML file, every key also as ``ROUTER_<SECTION>__<KEY>`` (spec, section 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr


def _default_data_dir() -> Path:
    return user_data_path("sealed-router", appauthor=False)


class Section(BaseModel):
    """A section refuses keys that it does not know: a typo is an error, not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class Server(Section):
    host: str = Field("127.0.0.1", description="Address to listen on; loopback unless told otherwise.")
    api_port: Port = Field(8082, description="Port of the API; `serve` answers everything here.")
    ws_port: Port = Field(8083, description="Port of the WebSocket service.")
    allowed_origins: list[str] = Field(
        [], description='Browser origins that may call (CORS and WebSocket); ["*"] is any.'
    )
    drain_seconds: Seconds = Field(25, description="How long a stopping process may take to finish, in seconds.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto is text on a terminal, JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")


class Auth(Section):
    kind: Literal["embedded", "jwks"] | None = Field(
        None, description="embedded signs with a key of its own; jwks where an URL is set."
    )
    identity_service_url: str | None = Field(
        None, description="The JWKS is discovered at its /.well-known/oauth-authorization-server."
    )
    jwks_url: str | None = Field(None, description="The JWKS, where it is named directly.")
    algorithms: list[str] = Field(["RS256"], min_length=1, description="Allowed signature algorithms, pinned.")
    issuer: str | None = Field(None, description="Required `iss`, where set.")
    audience: str | None = Field(None, description="Required `aud`, where set.")
    leeway_seconds: float = Field(30, ge=0, description="Clock skew that is forgiven, in seconds.")


class Ingress(Section):
    kind: Literal["embedded", "pubsub"] = Field("embedded", description="embedded (SQLite) or pubsub.")
    topic: str = Field("ingress-topic", description="Where accepted envelopes go.")
    subscription: str = Field("ingress-sub", description="Where the pipeline reads them.")
    dead_letter_topic: str = Field("ingress-topic-dlq", description="Where refused messages go.")
    max_attempts: int = Field(5, ge=1, description="Tries before a message is a dead letter.")
    idempotency_secret: SecretStr | None = Field(
        None,
        description="Keys the ids derived from Idempotency-Key; the same on all API nodes. "
        "Embedded makes one in its data directory.",
    )


class Online(Section):
    kind: Literal["embedded", "redis", "firestore"] = Field("embedded", description="embedded, redis or firestore.")
    url: SecretStr | None = Field(None, description="redis://… or rediss://…")
    mode: Literal["single", "sentinel", "cluster"] = Field("single", description="How the Redis is run.")
    lease_seconds: Seconds = Field(60, description="A connection that is not renewed counts as gone after this.")
    heartbeat_seconds: Seconds = Field(20, description="How often leases are renewed.")
    repoke_seconds: Seconds = Field(15, description="Unfetched mail is poked again after this.")
    push_after_seconds: Seconds = Field(60, description="Unfetched mail is announced by a push command after this.")
    sweep_after_seconds: Seconds = Field(600, description="Unfetched mail moves to cold after this.")
    tombstone_seconds: Seconds = Field(
        3600, description="How long an id is remembered; a day where the sender gave an Idempotency-Key."
    )
    durability: Literal["online-store", "write-through"] = Field(
        "online-store", description="write-through keeps a cold copy of each hot message from the start."
    )


class Cold(Section):
    kind: Literal["embedded", "firestore"] = Field("embedded", description="embedded (SQLite) or firestore.")
    collection: str = Field("cold-queue", description="The Firestore collection.")
    retention_days: float = Field(30, gt=0, description="Mail that nobody fetches is deleted after this.")


class Push(Section):
    kind: Literal["embedded", "pubsub", "none"] = Field("embedded", description="embedded (outbox), pubsub or none.")
    topic: str = Field("push-notifications", description="Where push commands go.")
    format: Literal["command", "notification-request"] = Field("command", description="The form of a push command.")


class Process(Section):
    port: Port | None = Field(None, description="Where `process` serves health and metrics; none if unset.")


class Embedded(Section):
    data_dir: Path = Field(
        default_factory=_default_data_dir, description="Where the embedded backend keeps its data."
    )


class Google(Section):
    project: str | None = Field(None, description="The Google Cloud project; GOOGLE_CLOUD_PROJECT if unset.")
    credentials_file: Path | None = Field(None, description="Service account key; default credentials if unset.")


class Limits(Section):
    envelope_bytes: int = Field(262_144, ge=1, description="Decoded bytes of the three opaque fields.")
    send_rate: float = Field(50, ge=0, description="Sends per second and sender; 0 is no limit.")
    send_burst: int = Field(200, ge=1, description="Sends that a sender may make at once.")
    queue_messages: int = Field(100_000, ge=1, description="Messages that may wait for one recipient.")
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


def load(path: Path | None = None) -> Config:
    """The configuration from ``path`` and the environment; raises ``ConfigError``."""
    raise NotImplementedError
