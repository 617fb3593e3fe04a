"""Firestore: documents with preconditions, commits of all or nothing, writes that fail one by one, and queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc
from google.cloud.firestore_v1.types import document, firestore, query, write

from tests.sim.vendors.grpc_channel import Caller, Status, StreamEnd
from tests.sim.vendors.wires import Place

Code = grpc.StatusCode
START = 1_790_000_000
REFUSED_SECONDS = 12.0
"""A document that is refused may be so for as long."""
_Document: Any = document.Document.pb()
_Operator: Any = query.StructuredQuery.FieldFilter.Operator
_COMPARING = {
    int(_Operator.LESS_THAN): lambda one, other: one < other,
    int(_Operator.LESS_THAN_OR_EQUAL): lambda one, other: one <= other,
    int(_Operator.GREATER_THAN): lambda one, other: one > other,
    int(_Operator.GREATER_THAN_OR_EQUAL): lambda one, other: one >= other,
    int(_Operator.EQUAL): lambda one, other: one == other,
}
_RANKS = {"null_value": 0, "boolean_value": 1, "integer_value": 2, "timestamp_value": 3, "string_value": 4}


class Firestore:
    """The service, whatever databases it has."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.collections: dict[str, dict[str, Any]] = {}
        """Documents by their names, in collections by their paths."""
        self.ttl: dict[str, str] = {}
        """By the name of a collection: the field that says when a document may go."""
        self._time = 0
        self._refused: dict[str, float] = {}

    def calm(self) -> None:
        """From here on nothing is refused for no reason."""
        self._refused.clear()

    def call(self, name: str, request: bytes, caller: Caller) -> list[bytes]:
        kind, method = self._CALLS[name]
        result: list[bytes] = method(self, kind.FromString(request), caller)
        return result

    def stream(self, name: str, stream: StreamEnd) -> None:
        raise Status(Code.UNIMPLEMENTED, name)

    def now(self) -> int:
        """µs since 1970, by the service's clock."""
        return int((START + self.place.now()) * 1e6)

    def _next_time(self) -> Any:
        self._time = max(self._time + 1, self.now())
        time = _Document().update_time
        time.FromMicroseconds(self._time)
        return time

    # Documents.

    def find(self, name: str) -> Any:
        """The document of that name, or ``None``."""
        return self.collections.get(name.rpartition("/")[0], {}).get(name)

    def expire(self) -> int:
        """What a TTL policy does now and then: drop documents whose time is over. Returns how many."""
        over = [
            name
            for path, held in self.collections.items()
            if (field := self.ttl.get(path.rpartition("/")[2]))
            for name, one in held.items()
            if one.fields[field].WhichOneof("value_type") == "timestamp_value"
            and one.fields[field].timestamp_value.ToMicroseconds() <= self.now()
        ]
        for name in over:
            self._delete(name)
        return len(over)

    def _delete(self, name: str) -> None:
        path = name.rpartition("/")[0]
        held = self.collections.get(path, {})
        held.pop(name, None)
        if not held:
            self.collections.pop(path, None)

    def _check(self, one: Any) -> None:
        """Raise ``Status`` where the precondition of a write does not hold."""
        name = one.update.name or one.delete
        if not one.HasField("current_document"):
            return
        there, wanted = self.find(name), one.current_document
        if wanted.WhichOneof("condition_type") == "exists":
            if wanted.exists and there is None:
                raise Status(Code.NOT_FOUND, f"No document to update: {name}")
            if not wanted.exists and there is not None:
                raise Status(Code.ALREADY_EXISTS, f"Document already exists: {name}")
        elif there is None or there.update_time != wanted.update_time:
            raise Status(Code.FAILED_PRECONDITION, "the stored version does not match the required base version")

    def _carry_out(self, one: Any, time: Any) -> Any:
        """Do a write; returns its result."""
        result = write.WriteResult.pb()()
        if one.delete:
            self._delete(one.delete)
            return result
        name = one.update.name
        there, made = self.find(name), _Document()
        made.CopyFrom(one.update if there is None or not one.HasField("update_mask") else _merged(there, one))
        made.update_time.CopyFrom(time)
        made.create_time.CopyFrom(time if there is None else there.create_time)
        if there is not None and there.fields == made.fields:
            made.update_time.CopyFrom(there.update_time)  # what changes nothing is no update
        self.collections.setdefault(name.rpartition("/")[0], {})[name] = made
        result.update_time.CopyFrom(made.update_time)
        return result

    # Calls.

    def _commit(self, request: Any, caller: Caller) -> list[bytes]:
        self._contend(caller, [one.update.name or one.delete for one in request.writes])
        for one in request.writes:
            self._check(one)
        time = self._next_time()
        results = [self._carry_out(one, time) for one in request.writes]
        return [firestore.CommitResponse.pb()(write_results=results, commit_time=time).SerializeToString()]

    def _contend(self, caller: Caller, names: Sequence[str]) -> None:
        """Now and then others hold what a commit is about."""
        if caller.fate.part < 1 and self.place.chance.random() < 0.5:
            raise Status(Code.ABORTED, "simulated: too much contention on these documents")

    def _batch_write(self, request: Any, caller: Caller) -> list[bytes]:
        response = firestore.BatchWriteResponse.pb()()
        names = [one.update.name or one.delete for one in request.writes]
        if len(set(names)) < len(names):
            raise Status(Code.INVALID_ARGUMENT, "a document is written twice in one call")
        self._refuse_some(caller, names)
        for one, name in zip(request.writes, names, strict=True):
            result, status = response.write_results.add(), response.status.add()
            try:
                self._refuse(name)
                self._check(one)
                result.CopyFrom(self._carry_out(one, self._next_time()))
                self._forswear(name)
            except Status as error:
                status.code, status.message = error.code.value[0], error.details
        return [response.SerializeToString()]

    def _refuse_some(self, caller: Caller, names: Sequence[str]) -> None:
        chance = self.place.chance
        for name in names if caller.fate.part < 1 else ():
            if chance.random() < 0.5:
                self._refused[name] = self.place.now() + REFUSED_SECONDS * chance.random()

    def _refuse(self, name: str) -> None:
        if self._refused and self._refused.get(name, 0.0) > self.place.now():
            chance = self.place.chance
            if chance.random() < 0.8:
                raise Status(chance.choice((Code.ABORTED, Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)), "simulated")

    def _forswear(self, name: str) -> None:
        """What is refused may have been done."""
        if self._refused and self._refused.get(name, 0.0) > self.place.now():
            raise Status(Code.UNAVAILABLE, "simulated: it was done, and nobody knows")

    def _get(self, request: Any, caller: Caller) -> list[bytes]:
        time = self._next_time()
        names = list(dict.fromkeys(request.documents))
        self.place.chance.shuffle(names)
        kind: Any = firestore.BatchGetDocumentsResponse.pb()
        answers = [(name, self.find(name)) for name in names]
        if request.HasField("mask"):
            answers = [(name, one and _only(one, request.mask.field_paths)) for name, one in answers]
        return [
            (kind(found=one, read_time=time) if one is not None else kind(missing=name, read_time=time))
            .SerializeToString()
            for name, one in answers
        ]  # fmt: skip

    def _run_query(self, request: Any, caller: Caller) -> list[bytes]:
        time, kind = self._next_time(), firestore.RunQueryResponse.pb()
        found = list(self._found(request.parent, request.structured_query))
        if not found:
            return [kind(read_time=time).SerializeToString()]
        return [kind(document=one, read_time=time).SerializeToString() for one in found]

    def _aggregate(self, request: Any, caller: Caller) -> list[bytes]:
        wanted = request.structured_aggregation_query
        summed = [one.sum.field.field_path for one in wanted.aggregations if one.HasField("sum")]
        # Only documents that have all the fields count, also for what asks for none.
        found = [
            one
            for one in self._found(request.parent, wanted.structured_query)
            if all(name in one.fields for name in summed)
        ]
        kind: Any = firestore.RunAggregationQueryResponse.pb()
        answer = kind(read_time=self._next_time())
        for one in wanted.aggregations:
            value = answer.result.aggregate_fields[one.alias]
            name = one.sum.field.field_path
            value.integer_value = sum(each.fields[name].integer_value for each in found) if name else len(found)
        return [answer.SerializeToString()]

    # Queries.

    def _found(self, parent: str, wanted: Any) -> Iterator[Any]:
        (source,) = wanted.from_
        order = wanted.order_by[0].field.field_path if wanted.order_by else ""
        filters = list(_filters(wanted.where))
        found = [
            one
            for one in self._collection(parent, source.collection_id, everywhere=source.all_descendants)
            if (not order or order in one.fields) and all(_holds(one, each) for each in filters)
        ]
        if order:
            found.sort(key=lambda one: (_sortable(one.fields[order]), _name(one.name)))
        else:
            found.sort(key=lambda one: _name(one.name))
        chosen = [each.field_path for each in wanted.select.fields]
        for one in found[: wanted.limit.value] if wanted.HasField("limit") else found:
            yield _only(one, chosen) if chosen else one

    def _collection(self, parent: str, name: str, *, everywhere: bool) -> Iterable[Any]:
        if not everywhere:
            return list(self.collections.get(f"{parent}/{name}", {}).values())
        if not parent.endswith("/documents"):
            raise Status(Code.INVALID_ARGUMENT, "collection group queries are only allowed at the root parent")
        paths = [path for path in self.collections if path.startswith(f"{parent}/") and path.endswith(f"/{name}")]
        return [one for path in paths for one in self.collections[path].values()]

    _CALLS = {  # noqa: RUF012 - never changed
        "Commit": (firestore.CommitRequest.pb(), _commit),
        "BatchWrite": (firestore.BatchWriteRequest.pb(), _batch_write),
        "BatchGetDocuments": (firestore.BatchGetDocumentsRequest.pb(), _get),
        "RunQuery": (firestore.RunQueryRequest.pb(), _run_query),
        "RunAggregationQuery": (firestore.RunAggregationQueryRequest.pb(), _aggregate),
    }


def _filters(where: Any) -> Iterator[Any]:
    kind = where.WhichOneof("filter_type")
    if kind == "composite_filter":
        for one in where.composite_filter.filters:
            yield from _filters(one)
    elif kind == "field_filter":
        yield where.field_filter
    elif kind is not None:
        raise Status(Code.UNIMPLEMENTED, f"the simulated service knows no {kind}")


def _holds(one: Any, wanted: Any) -> bool:
    name = wanted.field.field_path
    if name not in one.fields:
        return False
    held, value = _sortable(one.fields[name]), _sortable(wanted.value)
    return held[0] == value[0] and bool(_COMPARING[wanted.op](held[1], value[1]))


def _sortable(value: Any) -> tuple[int, Any]:
    """Values are ordered by their types first."""
    kind = value.WhichOneof("value_type")
    held = getattr(value, kind)
    if kind == "timestamp_value":
        return _RANKS[kind], held.ToMicroseconds()
    return _RANKS[kind], held.encode() if isinstance(held, str) else held


def _name(path: str) -> list[bytes]:
    return [part.encode() for part in path.split("/")]


def _merged(there: Any, one: Any) -> Any:
    """The document that is ``there``, after a write of some of its fields: one that the write lacks is dropped."""
    made = _Document()
    made.CopyFrom(there)
    for name in one.update_mask.field_paths:
        made.fields.pop(name, None)
        if name in one.update.fields:
            made.fields[name].CopyFrom(one.update.fields[name])
    return made


def _only(one: Any, names: Sequence[str]) -> Any:
    made = _Document(name=one.name, create_time=one.create_time, update_time=one.update_time)
    for name in names:
        if name in one.fields:
            made.fields[name].CopyFrom(one.fields[name])
    return made
