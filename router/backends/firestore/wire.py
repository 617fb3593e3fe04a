"""Firestore's protobuf messages as bare classes, which cost several times less than the library's wrappers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from google.cloud.firestore_v1.types import document, firestore, query, write
from msgspec import Struct

# The library makes these classes at import, so mypy cannot know their attributes.
Document: TypeAlias = Any
Write: TypeAlias = Any
Value: TypeAlias = Any

new_write: Any = write.Write.pb()
new_value: Any = document.Value.pb()
BatchWriteRequest: Any = firestore.BatchWriteRequest.pb()
BatchWriteResponse: Any = firestore.BatchWriteResponse.pb()
CommitRequest: Any = firestore.CommitRequest.pb()
CommitResponse: Any = firestore.CommitResponse.pb()
BatchGetDocumentsRequest: Any = firestore.BatchGetDocumentsRequest.pb()
BatchGetDocumentsResponse: Any = firestore.BatchGetDocumentsResponse.pb()
RunQueryRequest: Any = firestore.RunQueryRequest.pb()
RunQueryResponse: Any = firestore.RunQueryResponse.pb()
RunAggregationQueryRequest: Any = firestore.RunAggregationQueryRequest.pb()
RunAggregationQueryResponse: Any = firestore.RunAggregationQueryResponse.pb()
ListDocumentsRequest: Any = firestore.ListDocumentsRequest.pb()
ListDocumentsResponse: Any = firestore.ListDocumentsResponse.pb()
_Operator: Any = query.StructuredQuery.FieldFilter.Operator

GREATER = int(_Operator.GREATER_THAN)
GREATER_OR_EQUAL = int(_Operator.GREATER_THAN_OR_EQUAL)
LESS_OR_EQUAL = int(_Operator.LESS_THAN_OR_EQUAL)


class Query(Struct, frozen=True):
    """A query for documents of a collection, in the order of one field; leaves out documents without that field."""

    collection: str
    order: str
    limit: int
    above: int | str | None = None
    """Only those whose ``order`` is greater."""
    least: int | None = None
    """Only those whose ``order`` is this or greater."""
    most: int | None = None
    """Only those whose ``order`` is this or less."""
    everywhere: bool = False
    """All collections of this name, under any parent."""
    select: Sequence[str] = ()
    """Only these fields; all if empty."""

    def structured(self) -> Any:
        """The query as a Firestore message."""
        structured: Any = query.StructuredQuery.pb()()
        structured.from_.add(collection_id=self.collection, all_descendants=self.everywhere)
        structured.limit.value = self.limit
        structured.order_by.add().field.field_path = self.order
        for name in self.select:
            structured.select.fields.add().field_path = name
        bounds = ((GREATER, self.above), (GREATER_OR_EQUAL, self.least), (LESS_OR_EQUAL, self.most))
        for operator, value in bounds:
            if value is not None:
                bound(structured, self.order, operator, value)
        return structured


def bound(structured: Any, name: str, operator: int, value: int | str) -> None:
    """Leave out documents whose field ``name`` is missing or beyond ``value``."""
    one = structured.where.composite_filter.filters.add().field_filter
    structured.where.composite_filter.op = 1  # AND
    one.field.field_path = name
    one.op = operator
    if isinstance(value, str):
        one.value.string_value = value
    else:
        one.value.integer_value = value


def only_if(write: Write, update_time: Any) -> Write:
    """``write``, which Firestore refuses unless the document was last changed at ``update_time``; for ``None``, unless
    the document does not exist."""
    if update_time is None:
        write.current_document.exists = False
    else:
        write.current_document.update_time.CopyFrom(update_time)
    return write


def deletion(path: str) -> Write:
    """A write that deletes a document, if it exists."""
    return new_write(delete=path)


def integers(fields: Any, values: Iterable[tuple[str, int]]) -> None:
    """Set integer fields of a document."""
    for name, value in values:
        fields[name].integer_value = value
