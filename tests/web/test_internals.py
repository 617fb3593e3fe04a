"""What the transport relies on inside uvicorn and websockets is there, and one table names all of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import Server as UvicornServer
from websockets.server import ServerProtocol

from router.web.transport.connection import ClientConnection
from router.web.transport.exchange import Exchange
from router.web.transport.http import HttpProtocol
from router.web.transport.request_parser import RequestParser
from router.web.transport.server import Server, _Uvicorn
from router.web.transport.staged_transport import StagedTransport
from router.web.transport.uvicorn_internals import RELIED_ON
from router.web.transport.websocket import WebSocketProtocol
from tests.support.internals import changes, defined, members, names, used

TABLE = "router/web/transport/uvicorn_internals.py"
SUBCLASSES: Mapping[type, tuple[type, ...]] = {
    HttpToolsProtocol: (ClientConnection, HttpProtocol),
    WebSocketsSansIOProtocol: (ClientConnection, WebSocketProtocol),
    RequestResponseCycle: (Exchange,),
    UvicornServer: (_Uvicorn,),
}
HELD: Mapping[type, tuple[type, str]] = {
    RequestResponseCycle: (HttpProtocol, "self.cycle"),
    FlowControl: (HttpProtocol, "self.flow"),
    ServerProtocol: (WebSocketProtocol, "self.conn"),
    UvicornServer: (Server, "self._uvicorn"),
}
"""Who holds an object of a library, and how it is called there."""


def taken(library: type) -> set[str]:
    """What our code overrides and uses of ``library``."""
    found, added = set[str](), set[str]()
    for ours in SUBCLASSES.get(library, ()):
        found |= (defined(ours) | used(ours, "self", "super()")) & members(library)
        added |= defined(ours) - members(library)
    if library in HELD:
        found |= used(*HELD[library]) - added
    return found


@pytest.mark.parametrize("library", RELIED_ON, ids=lambda library: library.__name__)
def test_the_library_has_what_is_relied_on(library: type) -> None:
    package = library.__module__.partition(".")[0]
    changed = list(changes(library, RELIED_ON[library]))
    assert not changed, f"{package} {version(package)} changed: {'; '.join(changed)}. {TABLE} names it"


@pytest.mark.parametrize("library", [*SUBCLASSES, *HELD], ids=lambda library: library.__name__)
def test_the_table_names_what_is_relied_on_and_nothing_else(library: type) -> None:
    assert names(RELIED_ON[library]) == taken(library), TABLE


def test_our_parser_has_what_uvicorn_uses_of_its_own() -> None:
    asked = used(HttpToolsProtocol, "self.parser") - {"set_dangerous_leniencies"}
    assert asked <= defined(RequestParser), f"uvicorn {version('uvicorn')} changed: it asks more of its parser"


def test_our_transport_has_what_uvicorn_uses_of_one() -> None:
    asked = used(FlowControl, "self._transport")
    for protocol in (HttpToolsProtocol, RequestResponseCycle, WebSocketsSansIOProtocol):
        asked |= used(protocol, "self.transport")
    assert asked <= defined(StagedTransport), f"uvicorn {version('uvicorn')} changed: it asks more of a transport"
