"""The shapes of the OpenAPI and AsyncAPI documents as TypeScript, for ``clients/typescript``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.web.asyncapi import CLOSES
from router.web.openapi import document
from router.web.problems import STATUSES

HEAD = "// The shapes of requests and answers, from docs/openapi.json and docs/asyncapi.json. Written by `make docs`.\n"
KINDS = """\
/** The ends of the types of problems, by status. */
export type ProblemKinds = {{
{members}}};

export type ProblemKind = ProblemKinds[keyof ProblemKinds];

/** With which a router closes a WebSocket. */
export type CloseCode = {codes};
"""
_OF_A_STATUS = {f"Problem{status}" for status in STATUSES}
_PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean"}
Schema = Mapping[str, Any]


def shapes(root: Path) -> str:
    """``clients/typescript/src/api.ts``: a type for each schema, the kinds of problems, and the close codes."""
    del root
    schemas = document()["components"]["schemas"]
    types = [f"export type {name} = {_type(schema)};\n" for name, schema in schemas.items() if name not in _OF_A_STATUS]
    members = [f"  {status}: {_type({'enum': kinds})};\n" for status, kinds in STATUSES.items()]
    return "\n".join([HEAD, *types, KINDS.format(members="".join(members), codes=_type({"enum": sorted(CLOSES)}))])


def _type(schema: Schema, indent: str = "") -> str:
    match schema:
        case {"$ref": str(ref)}:
            return ref.rpartition("/")[2]
        case {"oneOf": list(choices)}:
            return " | ".join(_type(choice, indent) for choice in choices)
        case {"enum": list(values)}:
            return " | ".join(json.dumps(value) for value in values)
        case {"type": "array", "items": dict(items)}:
            return f"Array<{_type(items, indent)}>"
        case {"type": "object", "properties": dict(properties), "required": list(required)}:
            inner = f"{indent}  "
            members = [_member(name, of, name in required, inner) for name, of in properties.items()]
            return "{\n" + "".join(members) + f"{indent}}}"
        case {"type": str(plain)}:
            return _PLAIN[plain]
    raise ValueError(f"this schema has no form in TypeScript yet: {schema}")


def _member(name: str, schema: Schema, required: bool, indent: str) -> str:
    said = [schema["description"]] if "description" in schema else []
    if schema.get("contentEncoding") == "base64":
        said.append("Base64.")
    comment = f"{indent}/** {' '.join(said)} */\n" if said else ""
    return f"{comment}{indent}{name}{'' if required else '?'}: {_type(schema, indent)};\n"
