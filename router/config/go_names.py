"""What go-routing-service calls the settings, so that an operator who comes from it is told ours.

Its variables are plain words that other programs use too. They are never read, and only ``router config check`` names
them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

VARIABLES: Mapping[str, str] = {
    "GCP_PROJECT_ID": "google.project",
    "IDENTITY_SERVICE_URL": "auth.identity_service_url",
    "API_PORT": "server.api_port",
    "WEBSOCKET_PORT": "server.ws_port",
    "REDIS_ADDR": "online.url",
    "CORS_ALLOWED_ORIGINS": "server.allowed_origins",
    "LOG_LEVEL": "server.log_level",
}
"""Its environment variable -> our ``section.key``."""

KEYS: Mapping[str, str] = {
    "project_id": "google.project",
    "api_port": "server.api_port",
    "websocket_port": "server.ws_port",
    "identity_service_url": "auth.identity_service_url",
    "cors": "server.allowed_origins",
    "presence_cache": "online.kind, with online.url for Redis",
    "hot_queue": "online.kind, with online.url for Redis",
    "cold_queue_collection": "cold.collection",
    "ingress_topic_id": "ingress.topic",
    "ingress_subscription_id": "ingress.subscription",
    "ingress_topic_dlq_id": "ingress.dead_letter_topic",
    "push_notifications_topic_id": "push.topic",
    "num_pipeline_workers": "needed no more: start `router process` more often to route more",
    "run_mode": "needed no more: each *.kind says which backend to use",
}
"""A key or section of its ``config.yaml`` -> ours, or what became of it."""

_FORMS = {"online.url": 'as an URL, for example redis://host:6379, and online.kind = "redis"'}


def renamed(name: str) -> str:
    """What ``name``, a key or a variable, is called here; empty if go-routing-service has no such name."""
    found = KEYS.get(name) or VARIABLES.get(name.upper())
    if not found:
        return ""
    return f"{name} of go-routing-service is {found} here"


def unread(environ: Mapping[str, str], given: Collection[str]) -> list[tuple[str, str]]:
    """(variable, our key) of each variable of go-routing-service in ``environ`` whose key has no value; ``given`` are
    the keys that have one."""
    return [(name, key) for name, key in VARIABLES.items() if environ.get(name) and key not in given]
