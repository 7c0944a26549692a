"""A SOAP service as its WSDL describes it: writes the envelopes of calls and reads those of answers, with zeep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zeep
from lxml import etree
from zeep.exceptions import Error
from zeep.wsdl.bindings.soap import SoapBinding

from clients.auth import header_value
from clients.errors import BrokenBodyError, RejectedError, UnreadableError
from clients.soap.simple_values import as_they_came
from clients.soap.wsdl import Documents
from clients.soap.xml_values import bad_place, to_plain

# What zeep raises for documents and values that it cannot handle; there is no common base class.
_RAISES = (
    Error,
    etree.LxmlError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Service:
    """One port of a WSDL.

    Args:
        documents: where the WSDL comes from.
        wsse: zeep's sign-in for the envelope.
        strict: as zeep understands it.
        names: of service and port; None takes the first one.
        url: where calls go, instead of the address in the WSDL.

    Raises:
        RejectedError: the WSDL has no such service or port.
        UnreadableError: it cannot be understood.
    """

    def __init__(
        self, documents: Documents, *, wsse: Any, strict: bool, names: tuple[str | None, str | None], url: str | None
    ) -> None:
        # Imports within the origin must load, so zeep may fetch while it reads the WSDL; `documents` refuses all others.
        settings = zeep.Settings(strict=strict, forbid_dtd=True, forbid_entities=True, forbid_external=False, xml_huge_tree=False)
        try:
            self._client: Any = zeep.Client(  # type: ignore[no-untyped-call]
                documents.root, wsse=wsse, transport=documents, settings=settings
            )
        except _RAISES as error:
            raise BrokenBodyError(f"the WSDL cannot be understood ({type(error).__name__})", url=documents.root) from None
        settings.forbid_external = True
        self._strict = strict
        service, port = names
        ports = [
            (one.name, each.name, each)
            for one in self._client.wsdl.services.values()
            if service in (None, one.name)
            for each in one.ports.values()
            if port in (None, each.name) and isinstance(each.binding, SoapBinding)
        ]
        if not ports:
            raise RejectedError("the WSDL has no such service or port that speaks SOAP over HTTP", url=documents.root)
        found = ports[0][2]
        self.binding: Any = found.binding
        self.url: str = url or (found.binding_options or {}).get("address") or ""

    def request(self, operation: str, arguments: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
        """Return the envelope and the HTTP headers of a call."""
        try:
            envelope, headers = self.binding._create(
                operation, (), dict(arguments), client=self._client, options={"address": self.url}
            )
            content = etree.tostring(envelope, xml_declaration=True, encoding="utf-8")
        except _RAISES as error:
            # zeep's messages name arguments and types; only plain ValueErrors repeat a value.
            detail = "" if type(error) is ValueError else f": {' '.join(str(error).split())}"
            raise RejectedError(
                f"the arguments do not fit {operation!r} of the WSDL{detail}"[:500], method="POST", url=self.url
            ) from None
        return content, {
            name: header_value(str(value), what=f"header {name}") if value else '""' for name, value in headers.items()
        }

    def result(self, operation: str, reply: Reply, *, is_page: bool = False) -> dict[str, Any]:
        """Return what an answer holds, as plain values.

        Args:
            operation: that was called.
            reply: to it.
            is_page: where a value is bad, only the item that has it is; it is a `BadValue` there.
        """
        described = self.binding.get(operation)
        expected = _element(described)
        if self._strict and expected is not None and reply.tag != expected:
            # zeep reads any element as the one that it expects, and finds nothing in it.
            raise UnreadableError("the answer does not fit the WSDL (another element)", method="POST", url=self.url)
        try:
            plain = self._read(described, reply, strict=self._strict)
        except _RAISES as error:
            plain = self._with_bad_items(described, reply) if is_page and self._strict else None
            if plain is None:
                # The messages repeat what was received.
                raise UnreadableError(
                    f"the answer does not fit the WSDL ({type(error).__name__})", method="POST", url=self.url
                ) from None
        if self._strict and not is_page and (place := bad_place(plain)) is not None:
            what = f"{place!r} is not of its type, or not known" if place else "a value is not of its type"
            raise UnreadableError(f"the answer does not fit the WSDL ({what})", method="POST", url=self.url)
        if isinstance(plain, dict):
            return plain
        name = _result_name(described)
        return {} if name is None and plain is None else {name or "result": plain}

    def _read(self, operation: Any, reply: Reply, *, strict: bool) -> Any:
        with as_they_came(), self._client.settings(strict=strict):
            value = self.binding.process_reply(self._client, operation, reply)
        if type(value).__name__ == "MessagePack":
            raise UnreadableError("the answer has attachments, which are not read", method="POST", url=self.url)
        return to_plain(value, strict=self._strict)

    def _with_bad_items(self, operation: Any, reply: Reply) -> Any:
        """Return a page of which some items do not fit the WSDL; None where none of them is known to be the fault."""
        try:
            plain = self._read(operation, reply, strict=False)
        except _RAISES:
            return None
        return None if bad_place(plain) is None else plain


class Reply:
    """An envelope without fault, in the form in which zeep expects an answer.

    Args:
        content: as it came.
        content_type: of HTTP.
        tag: the first element of the body.
    """

    status_code = 200
    encoding = "utf-8"

    def __init__(self, content: bytes, content_type: str, tag: str | None) -> None:
        self.content = content
        self.headers = {"Content-Type": content_type or "text/xml"}
        self.tag = tag


def _element(operation: Any) -> str | None:
    """Return the name of the one element that answers an operation in document style."""
    output = getattr(operation, "output", None)
    qname = getattr(getattr(output, "body", None), "qname", None)
    return str(qname) if qname is not None and getattr(output, "_is_body_wrapped", True) is False else None


def _result_name(operation: Any) -> str | None:
    """Return the name of the one element that zeep unwraps."""
    body = getattr(getattr(operation, "output", None), "body", None)
    elements: Any = getattr(getattr(body, "type", None), "elements", None) or ()
    return str(elements[0][0]) if len(elements) == 1 else None
