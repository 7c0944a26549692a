"""Syncs against a moto, which answers as AWS does: tokens in JSON, objects as cursors, S3 in XML, signatures that are checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import httpx
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from sqlalchemy import text

from clients import (
    AuthRefusedError,
    Cursor,
    Entity,
    GoneError,
    HttpClient,
    Listing,
    Page,
    PageAnswer,
    PageRequest,
    RejectedError,
)
from flows import Client, Sync
from flows.sync import run as engine
from jobs import JobStore

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.real.conftest import Cloud

REGION = "eu-central-1"


class Signed(httpx.BaseTransport):
    """What a client's author writes for AWS: signs each request as it is sent, with the vendor's own code."""

    def __init__(self, service: str, key: str = "any", secret: str = "any") -> None:
        self._service, self._credentials = service, Credentials(key, secret)
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sign and send."""
        body = request.read()
        kept = {name: value for name, value in request.headers.items() if name in ("content-type", "host", "x-amz-target")}
        signed = AWSRequest(request.method, str(request.url), data=body, headers=kept)
        kind = S3SigV4Auth if self._service == "s3" else SigV4Auth
        kind(self._credentials, self._service, REGION).add_auth(signed)
        headers = {**request.headers, **dict(signed.headers.items())}
        again = httpx.Request(request.method, request.url, headers=headers, content=body, extensions=request.extensions)
        return self._inner.handle_request(again)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


def records(store: JobStore) -> dict[str, Any]:
    """Return the mirrored data by key, of what is not deleted."""
    with store.db.read() as connection:
        rows = connection.execute(text("SELECT key, data FROM record WHERE deleted_at IS NULL")).all()
    return {row.key: json.loads(row.data) if isinstance(row.data, str) else row.data for row in rows}


# -- JSON with a token: Systems Manager

PARAMETERS = Listing(
    "", Cursor("NextToken", "NextToken"), items="Parameters", key="Name", version="Version", method="POST",
    json={"Path": "/shop", "Recursive": True, "MaxResults": 10},
)  # fmt: skip


def systems(cloud: Cloud, action: str, **options: Any) -> HttpClient:
    """Return a client of Systems Manager; AWS has a content type of its own."""
    headers = {"X-Amz-Target": f"AmazonSSM.{action}", "Content-Type": "application/x-amz-json-1.1"}
    return HttpClient(cloud.url, headers=headers, transport=Signed("ssm", **options))


def test_parameters_by_token(cloud: Cloud, store: JobStore) -> None:
    """25 parameters on three pages; a new version of one is seen, and one that was deleted is deleted."""
    vendor = cloud.boto("ssm")
    for number in range(25):
        vendor.put_parameter(Name=f"/shop/{number:02}", Value=f"value {number} ü", Type="String")
    client = Client("ssm", connect=lambda _: systems(cloud, "GetParametersByPath"))
    sync = Sync("ssm.parameters", client, listing=PARAMETERS, delete_missing=True)

    result = engine.run(sync, store)
    assert (result.state, result.listed, result.pages, result.stopped) == ("success", 25, 3, "end")
    assert records(store)["/shop/07"]["Value"] == "value 7 ü"

    vendor.put_parameter(Name="/shop/07", Value="other", Type="String", Overwrite=True)
    vendor.delete_parameter(Name="/shop/08")
    result = engine.run(sync, store)
    assert (result.state, result.succeeded, result.unchanged, result.deleted) == ("success", 1, 23, 1)
    assert records(store)["/shop/07"]["Value"] == "other"


def test_who_signs_is_checked(cloud: Cloud) -> None:
    """A key that may, one that may not, and a secret that is wrong; the secret is in no error."""
    vendor = cloud.boto("iam")
    keys = {}
    for name in ("reader", "nobody"):
        vendor.create_user(UserName=name)
        keys[name] = vendor.create_access_key(UserName=name)["AccessKey"]
    allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}]}
    vendor.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(allowed))
    cloud.boto("ssm").put_parameter(Name="/shop/a", Value="1", Type="String")
    cloud.check_signatures(True)

    def listed(key: Mapping[str, str], secret: str) -> list[str]:
        with systems(cloud, "GetParametersByPath", key=key["AccessKeyId"], secret=secret) as http:
            return [entity.key for page in PARAMETERS(http) for entity in page.items]

    reader, nobody = keys["reader"], keys["nobody"]
    assert listed(reader, reader["SecretAccessKey"]) == ["/shop/a"]
    for key, secret in ((nobody, nobody["SecretAccessKey"]), (reader, "wrong-secret-of-reader")):
        # AWS says 400 for a sign-in where others say 401 or 403; some of its services do.
        with pytest.raises((AuthRefusedError, RejectedError)) as caught:
            listed(key, secret)
        assert secret not in repr(caught.value)


# -- JSON with an object as cursor: DynamoDB


@dataclass(frozen=True)
class LastKey:
    """What a client's author writes where the cursor is an object: `LastEvaluatedKey` goes back as `ExclusiveStartKey`."""

    def first(self) -> PageRequest:
        """Return the request without a key."""
        return PageRequest()

    def next(self, request: PageRequest, answer: PageAnswer) -> PageRequest | None:
        """Return the request that begins behind the last key, or None where there is none."""
        last = answer.body.get("LastEvaluatedKey")
        return PageRequest({"ExclusiveStartKey": last}) if last else None


def dynamo(cloud: Cloud) -> HttpClient:
    """Return a client of DynamoDB."""
    headers = {"X-Amz-Target": "DynamoDB_20120810.Scan", "Content-Type": "application/x-amz-json-1.0"}
    return HttpClient(cloud.url, headers=headers, transport=Signed("dynamodb"))


def test_a_table_with_an_object_as_cursor(cloud: Cloud, store: JobStore) -> None:
    """57 items, ten at a time, by a paginator of one's own; a filter empties pages in the middle, and nothing is missed."""
    vendor = cloud.boto("dynamodb")
    vendor.create_table(
        TableName="pets", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    for number in range(57):
        vendor.put_item(TableName="pets", Item={"id": {"S": f"p{number:02}"}, "even": {"BOOL": number % 2 == 0}})
    scan = {"TableName": "pets", "Limit": 10}
    listing = Listing("", LastKey(), items="Items", key="id.S", method="POST", json=scan)
    client = Client("dynamo", connect=lambda _: dynamo(cloud))
    result = engine.run(Sync("dynamo.pets", client, listing=listing, delete_missing=True), store)
    assert (result.state, result.listed, result.pages, result.stopped) == ("success", 57, 6, "end")
    assert records(store)["p10"] == {"id": {"S": "p10"}, "even": {"BOOL": True}}

    few = {"FilterExpression": "id = :id", "ExpressionAttributeValues": {":id": {"S": "p55"}}}
    filtered = Listing("", LastKey(), items="Items", key="id.S", method="POST", json={**scan, **few})
    with dynamo(cloud) as http:
        assert [[entity.key for entity in page.items] for page in filtered(http)] == [[], [], [], [], [], ["p55"]]
        with pytest.raises(RejectedError, match="400 Bad Request"):
            list(Listing("", LastKey(), items="Items", key="id.S", method="POST", json={"TableName": "cats"})(http))


# -- XML: S3

_S3 = {"s3": "http://s3.amazonaws.com/doc/2006-03-01/"}


def objects(http: HttpClient, since: Mapping[str, str] | None = None) -> Iterator[Page]:
    """List a bucket; what a client's author writes where the listing is XML (ListObjectsV2)."""
    token = None
    while True:
        answer = http.request("GET", "", params={"list-type": 2, "max-keys": 10, "continuation-token": token, **(since or {})})
        root = ET.fromstring(answer.content)
        found = [(one.findtext("s3:Key", "", _S3), one.findtext("s3:ETag", "", _S3)) for one in root.iterfind("s3:Contents", _S3)]
        token = root.findtext("s3:NextContinuationToken", None, _S3)
        yield Page([Entity(key, etag) for key, etag in found], token)
        if token is None:
            return


def bucket(cloud: Cloud) -> HttpClient:
    """Return a client of one bucket."""
    return HttpClient(f"{cloud.url}/shop-bucket/", transport=Signed("s3"))


def read(http: HttpClient, entity: Entity) -> Any:
    """Fetch an object."""
    return {"text": http.request("GET", quote(entity.key)).text}


def test_objects_of_a_bucket_in_xml(cloud: Cloud, store: JobStore) -> None:
    """35 objects with names that need quoting; the ETag is the version: only what changed is fetched again."""
    vendor = cloud.boto("s3")
    vendor.create_bucket(Bucket="shop-bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    for number in range(35):
        vendor.put_object(Bucket="shop-bucket", Key=f"a b/{number:02} & <ü>.txt", Body=f"content {number}".encode())
    client = Client("s3", connect=lambda _: bucket(cloud))
    sync = Sync("s3.objects", client, listing=objects, fetch=read, delete_missing=True)

    result = engine.run(sync, store)
    assert (result.state, result.listed, result.pages, result.requests) == ("success", 35, 4, 4 + 35)
    assert records(store)["a b/07 & <ü>.txt"] == {"text": "content 7"}

    vendor.put_object(Bucket="shop-bucket", Key="a b/07 & <ü>.txt", Body=b"other")
    vendor.delete_object(Bucket="shop-bucket", Key="a b/08 & <ü>.txt")
    result = engine.run(sync, store)
    assert (result.state, result.succeeded, result.unchanged, result.deleted) == ("success", 1, 33, 1)
    assert result.requests == 4 + 1
    assert records(store)["a b/07 & <ü>.txt"] == {"text": "other"}


def test_an_object_is_asked_for_conditionally(cloud: Cloud, store: JobStore) -> None:
    """S3 keeps its ETags: the second run gets 304 for each object, and saves nothing."""
    vendor = cloud.boto("s3")
    vendor.create_bucket(Bucket="shop-bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    for number in range(12):
        vendor.put_object(Bucket="shop-bucket", Key=f"{number:02}.json", Body=json.dumps({"number": number}).encode())

    def unversioned(http: HttpClient, since: Mapping[str, str] | None = None) -> Iterator[Page]:
        for page in objects(http, since):
            yield Page([Entity(one.key) for one in page.items], page.cursor)

    statuses: list[str] = []

    def fetch(http: HttpClient, entity: Entity) -> Any:
        try:
            found = http.get_json(entity.key)
        except Exception as error:
            statuses.append(type(error).__name__)
            raise
        statuses.append("200")
        return found

    client = Client("s3", connect=lambda _: bucket(cloud))
    sync = Sync("s3.objects", client, listing=unversioned, fetch=fetch, conditional=True)
    assert engine.run(sync, store).succeeded == 12
    vendor.put_object(Bucket="shop-bucket", Key="07.json", Body=b'{"number": 70}')
    statuses.clear()
    result = engine.run(sync, store)
    assert (result.state, result.succeeded, result.unchanged) == ("success", 1, 11)
    assert sorted(statuses) == ["200"] + ["NotModifiedError"] * 11
    assert records(store)["07.json"] == {"number": 70}


def test_a_bucket_that_is_not_there(cloud: Cloud) -> None:
    """404, and not an empty listing by which all would be deleted."""
    with bucket(cloud) as http, pytest.raises(GoneError, match="404 Not Found"):
        list(objects(http))
