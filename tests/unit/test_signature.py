"""Signatures of S3, against the examples that its specification gives."""

from datetime import UTC, datetime

from headrace.stores.signature import Signer, quoted

NOW = datetime(2013, 5, 24, tzinfo=UTC)
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SIGNER = Signer("AKIAIOSFODNN7EXAMPLE", SECRET, "us-east-1")
HOST = "examplebucket.s3.amazonaws.com"


def test_a_request_without_a_body() -> None:
    headers = {"Host": HOST, "Range": "bytes=0-9"}
    signed = SIGNER.headers("GET", "/test.txt", {}, headers, now=NOW)
    assert signed["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    assert signed["Range"] == "bytes=0-9"


def test_a_request_with_a_query() -> None:
    signed = SIGNER.headers("GET", "/", {"prefix": "J", "max-keys": "2"}, {"Host": HOST}, now=NOW)
    signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    assert signed["Authorization"].endswith(f"Signature={signature}")


def test_a_request_with_a_body() -> None:
    headers = {
        "Host": HOST,
        "Date": "Fri, 24 May 2013 00:00:00 GMT",
        "X-Amz-Storage-Class": "REDUCED_REDUNDANCY",
    }
    digest = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
    signed = SIGNER.headers("PUT", "/test%24file.text", {}, headers, digest, NOW)
    signature = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    assert signed["Authorization"].endswith(f"Signature={signature}")


def test_a_url_for_anybody() -> None:
    query = SIGNER.query("GET", HOST, "/test.txt", {}, 86400, NOW)
    assert query.endswith(
        "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    assert "X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F" in query
    assert SECRET not in query


def test_a_query_is_sorted_and_escaped() -> None:
    assert quoted({"b": "x y", "a~": "/?", "uploads": ""}) == "a~=%2F%3F&b=x%20y&uploads="


def test_keys_are_in_no_representation() -> None:
    assert SECRET not in repr(SIGNER)
    assert "AKIA" not in repr(SIGNER)
