"""Reads a description of an API (OpenAPI 3, Swagger 2): its listings, their parameters, the shape of their answers, sign-in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.drafting.places import words_of
from flows.errors import UsageError

_DEPTH = 8
"""Schemas within schemas that are looked into; a tree of comments refers to itself."""


@dataclass(frozen=True, slots=True)
class Described:
    """One listing of an API.

    Args:
        path: below the address of the API.
        schema: of the good answer, without references.
        params: of its query, by name, with their schemas.
        fetch: the path of one row, with `{key}`; None where there is none.
        fetch_name: what the description calls the key in it.
        has_link_header: the answer has the header `Link`.
    """

    path: str
    schema: Mapping[str, Any]
    params: Mapping[str, Mapping[str, Any]]
    fetch: str | None
    fetch_name: str
    has_link_header: bool


class ApiDescription:
    """A description.

    Raises:
        UsageError: the document is none.
    """

    def __init__(self, document: Any) -> None:
        if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
            raise UsageError("--openapi: the document has no `paths`; it must be OpenAPI 3 or Swagger 2. Nothing was written")
        self._document = document

    def listings(self) -> dict[str, Described]:
        """Return the GETs whose answers have a list, by path."""
        return {one.path: one for one in self._listings()}

    def sign_in(self, name: str) -> str | None:
        """Return how to sign in, as `--auth` says it, with variables named after the client; None where it needs none."""
        wanted = self._document.get("security") or [
            one
            for item in self._document["paths"].values()
            if isinstance(item, dict)
            for one in (item.get("get") or {}).get("security") or ()
        ]
        components = self._document.get("components") or {}
        known = components.get("securitySchemes") or self._document.get("securityDefinitions") or {}
        prefix = "_".join(words_of(name)).upper()
        for scheme in (self._whole(known[one]) for each in wanted for one in each if one in known):
            kind, how = str(scheme.get("type", "")).lower(), str(scheme.get("scheme", "")).lower()
            if kind == "apikey" and scheme.get("in") in ("header", "query"):
                return f"{scheme['in']}:{scheme.get('name')}:{prefix}_KEY"
            if kind == "basic" or how == "basic":
                return f"basic:{prefix}_USER:{prefix}_PASSWORD"
            if kind in ("http", "oauth2", "openidconnect"):
                return f"bearer:{prefix}_TOKEN"
        return None

    def _listings(self) -> Iterator[Described]:
        paths = self._document["paths"]
        for path, item in paths.items():
            operation = item.get("get") if isinstance(item, dict) else None
            if not isinstance(operation, dict) or "{" in path:
                continue
            answer = self._answer(operation)
            schema = self._schema(answer)
            if not _has_list(schema):
                continue
            inner = f"{path.rstrip('/')}/{{"
            below = (one for one in paths if one.startswith(inner) and one.rstrip("/").endswith("}") and one.count("{") == 1)
            fetch = next((one for one in below if isinstance(paths[one], dict) and "get" in paths[one]), None)
            key = "" if fetch is None else fetch[len(inner) :].rstrip("/").removesuffix("}")
            template = None if fetch is None else fetch.replace(f"{{{key}}}", "{key}").lstrip("/")
            headers = {str(one).lower() for one in answer.get("headers") or ()}
            yield Described(path, schema, self._params(item, operation), template, key, "link" in headers)

    def _answer(self, operation: Mapping[str, Any]) -> Mapping[str, Any]:
        answers = operation.get("responses") or {}
        good: Any = next((answers[one] for one in ("200", 200, "2XX", "default") if one in answers), {})
        return self._whole(good, depth=1)

    def _schema(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        if "schema" in answer:
            return self._whole(answer["schema"])
        content = answer.get("content") or {}
        media: Any = next((content[one] for one in content if "json" in one), {})
        return self._whole(media.get("schema") or {})

    def _params(self, item: Mapping[str, Any], operation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        whole = [self._whole(one) for one in (*(item.get("parameters") or ()), *(operation.get("parameters") or ()))]
        return {str(one.get("name")): {**one, **(one.get("schema") or {})} for one in whole if one.get("in") == "query"}

    def _whole(self, schema: Any, *, depth: int = _DEPTH) -> dict[str, Any]:
        """Return a schema with its references and what it is made of put in place."""
        if not isinstance(schema, dict) or depth < 0:
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            return self._whole(self._at(reference), depth=depth - 1)
        found = dict(schema)
        parts = [self._whole(one, depth=depth - 1) for one in (*(schema.get("allOf") or ()), *(schema.get("oneOf") or ())[:1])]
        properties: dict[str, Any] = {}
        for part in (*parts, schema):
            properties |= part.get("properties") or {}
        for part in parts:
            found = {**part, **{name: value for name, value in found.items() if name not in ("allOf", "oneOf")}}
        if properties:
            found["properties"] = {name: self._whole(one, depth=depth - 1) for name, one in properties.items()}
        for name in ("items", "schema"):
            if name in found:
                found[name] = self._whole(found[name], depth=depth - 1)
        return found

    def _at(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            return {}
        found: Any = self._document
        for name in reference[2:].split("/"):
            part = name.replace("~1", "/").replace("~0", "~")
            found = found.get(part) if isinstance(found, dict) else None
        return found


def _has_list(schema: Mapping[str, Any], depth: int = 3) -> bool:
    if schema.get("type") == "array":
        return True
    return depth > 0 and any(_has_list(one, depth - 1) for one in (schema.get("properties") or {}).values())
