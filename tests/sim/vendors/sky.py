"""The wires of a run: what its weather does to the calls of one node to one server."""

from __future__ import annotations

from tests.sim.links import Weather
from tests.sim.loop import PROCESS, Process
from tests.sim.vendors.wires import Fate, Wire

STORES = {"redis": ("online",), "firestore": ("cold",), "pubsub": ("ingress", "push")}
"""Which of the stores that a plan speaks of are on a server."""


class WeatherWire(Wire):
    """Between one process of a node and one server."""

    def __init__(self, weather: Weather, process: Process, stores: tuple[str, ...]) -> None:
        self._weather = weather
        self._process = process
        self._node = int(process.name[1:])
        self._stores = stores

    @property
    def alive(self) -> bool:  # type: ignore[override]  # that of a real process changes
        return self._process.alive

    def away(self) -> bool:
        return any(self._weather.away(self._node, store) for store in self._stores)

    def fate(self, call: str) -> Fate:
        weather = self._weather
        weather.calls += 1
        if self.away():
            return self._gone()
        fault = weather.fault("put" if call == "BatchWrite" else call)
        if fault is not None and weather.tell is not None:
            weather.tell(self._process.name, f"{call}: {fault}")
        there, back = weather.chance.random() * weather.latency, weather.chance.random() * weather.latency
        if fault == "late" and call == "BatchWrite":
            # What a cold queue does after its caller has given up is beyond what the router can know.
            fault = "answer lost"
        return {
            "refused": Fate(None, back, fails=True),
            "no answer": Fate(None, None),
            "failed after": Fate(there, back, fails=True),
            "answer lost": Fate(there, None),
            "late": Fate(weather.span(0.5, 8), back),
            "partly": Fate(there, back, fails=call == "redis", part=weather.chance.random()),
        }.get(fault or "", Fate(there, back))

    def _gone(self) -> Fate:
        if self._weather.chance.random() < 0.7:
            return Fate(None, self._weather.span(0, 0.1), fails=True)
        return Fate(None, None)

    def opening(self) -> Fate:
        return self._gone() if self.away() else Fate(self._weather.chance.random() * self._weather.latency)

    def tears(self) -> bool:
        return self._weather.fault("stream") in ("refused", "failed after")


class Sky:
    """Makes wires."""

    def __init__(self, weather: Weather, online: str) -> None:
        """``online``: the server that is the online store."""
        self._weather = weather
        self._stores = dict(STORES)
        if online == "firestore":
            self._stores["firestore"] = ("online", "cold")

    def wire(self, target: str) -> Wire:
        """From the process that asks to the server at ``target``."""
        process = PROCESS.get()
        if process is None or process.name == "outside":
            return Wire()
        return WeatherWire(self._weather, process, self._stores[target.partition(".")[0]])
