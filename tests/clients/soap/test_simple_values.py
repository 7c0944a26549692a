"""Values of a SOAP service as they came: .NET's booleans, zones of dates, elements that are new, and what is not of its type."""

from __future__ import annotations

from typing import Any

import pytest

from clients import SinglePage, SoapClient, SoapListing, UnreadableError
from flows import Client, Sync
from flows.sync import run as engine
from jobs import JobStore
from tests.support.adapter_servers import Shop
from tests.support.fake_things_api import query
from tests.support.soap_answers import client_of, says


def envelope(body: str) -> str:
    """Return an envelope of SOAP 1.1."""
    return f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{body}</s:Body></s:Envelope>'


def thing(**members: str) -> str:
    """Return the members of a thing."""
    return "".join(f"<a:{name}>{text}</a:{name}>" for name, text in members.items())


def got(shop: Shop, members: str, **options: Any) -> dict[str, Any]:
    """Return the one thing that a service answers."""
    body = f'<a:getResponse xmlns:a="shop"><a:getResult>{members}</a:getResult></a:getResponse>'
    shop.instead = says(envelope(body))
    with client_of(shop, **options) as client:
        return client.call("get", id=1)


def listed(*things: str) -> str:
    """Return the envelope of a listing."""
    rows = "".join(f"<a:Thing>{one}</a:Thing>" for one in things)
    return envelope(f'<a:allResponse xmlns:a="shop"><a:allResult>{rows}</a:allResult></a:allResponse>')


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("good", "True", True), ("good", "TRUE", True), ("good", " 1 ", True), ("good", "False", False), ("good", "0", False),
        ("day", "2026-12-31-05:00", "2026-12-31-05:00"), ("day", "2026-12-31Z", "2026-12-31Z"),
        ("day", "2026-12-31", "2026-12-31"),
        ("changed", "2026-12-31T01:02:03.1234567Z", "2026-12-31T01:02:03.1234567Z"),
        ("changed", "2026-12-31T01:02:03-05:00", "2026-12-31T01:02:03-05:00"),
        ("price", "12345678901234567.8900", "12345678901234567.8900"), ("id", str(2**70), 2**70),
    ],
)  # fmt: skip
def test_values_as_they_came(shop: Shop, name: str, text: str, value: Any, strict: bool) -> None:
    """Whatever the library makes of them, with and without `strict`."""
    found = got(shop, thing(**{name: text}), strict=strict)[name]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("name", ["good", "day", "changed", "price", "id", "weight", "took"])
def test_a_value_that_is_not_of_its_type(shop: Shop, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """In strict mode it fails that call, which says where it stands and not what it is; else it is the text that came."""
    with pytest.raises(UnreadableError, match=f"'{name}' is not of its type") as caught:
        got(shop, thing(**{name: "perhaps"}))
    assert "perhaps" not in str(caught.value) + caplog.text
    assert got(shop, thing(**{name: "perhaps"}), strict=False)[name] == "perhaps"


def test_elements_that_are_new(shop: Shop) -> None:
    """Without `strict` they come with their text or XML, the same in each process; no object of the library is stored."""
    new = "<a:extra>new</a:extra><a:more>1</a:more><a:more>2</a:more><a:deep><a:x>1</a:x></a:deep><a:none/><a:none2 k='1'/>"
    found = got(shop, thing(id="1") + new, strict=False)
    assert (found["id"], found["extra"], found["more"], found["none"]) == (1, "new", ["1", "2"], None)
    assert found["deep"].startswith("<a:deep")
    assert "0x" not in repr(found)
    with pytest.raises(UnreadableError, match="does not fit the WSDL"):
        got(shop, thing(id="1") + new)


BAD = [thing(id="2", good="perhaps"), thing(id="2") + "<a:extra>new</a:extra>", thing(id="2", price="many")]


@pytest.mark.parametrize("bad", BAD, ids=["value", "element", "decimal"])
def test_one_bad_value_is_one_bad_item(store: JobStore, shop: Shop, bad: str) -> None:
    """In strict mode too: the others of its page are stored, it is named, and nothing is deleted."""
    client = Client("shop", connect=lambda _: SoapClient(f"{shop.url}?wsdl"))
    sync = Sync("shop.things", client, listing=SoapListing("all", SinglePage()), delete_missing=True, max_delete_share=1.0)
    rows = [thing(id=str(number)) for number in range(5)]
    shop.instead = says(listed(*rows))
    assert engine.run(sync, store).succeeded == 5
    shop.instead = says(listed(*rows[:2], bad, thing(id="3", good="True")))
    result = engine.run(sync, store)
    assert (result.listed, result.flawed, result.succeeded, result.deleted, result.stopped) == (3, 1, 1, 0, "end")
    assert any("'2' does not fit the WSDL: " in text for _, text in result.failures)
    assert {row["key"] for row in query(store, "SELECT key FROM record WHERE deleted_at IS NULL")} == {*"01234"}


def test_a_bad_value_beside_the_items(shop: Shop) -> None:
    """It is no item's fault: that page is refused."""
    body = '<a:pageResponse xmlns:a="shop"><a:pageResult><a:things/><a:more>perhaps</a:more></a:pageResult></a:pageResponse>'
    shop.instead = says(envelope(body))
    with client_of(shop) as client, pytest.raises(UnreadableError, match="'more' is not of its type"):
        list(SoapListing("page", items="things.Thing")(client))


def test_other_users_of_the_library_see_no_change(shop: Shop) -> None:
    """What is replaced in zeep does what it did, unless this package reads an answer."""
    from zeep.xsd.types.builtins import Boolean

    import clients.soap.simple_values  # noqa: F401

    got(shop, thing(good="True"))
    from lxml import etree

    assert Boolean().parse_xmlelement(etree.fromstring("<x>True</x>")) is False
