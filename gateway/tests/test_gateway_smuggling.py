"""Request smuggling, over raw sockets: nobody can make the gateway see a request where another reader sees a body."""

import pytest
from gateway_stand import Stand, answers_in, nothing_was_forwarded

pytestmark = pytest.mark.both_ways

PATIENTS = "/api/v1/patients"

FRAMINGS = {
    "CL and TE": "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "TE and CL": "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
    "two CL": "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two equal CL": "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "CL list": "Content-Length: 5, 5\r\n\r\nhello",
    "CL with a sign": "Content-Length: +5\r\n\r\nhello",
    "negative CL": "Content-Length: -5\r\n\r\nhello",
    "hexadecimal CL": "Content-Length: 0x5\r\n\r\nhello",
    "CL with an underscore": "Content-Length: 1_0\r\n\r\n0123456789",
    "huge CL": "Content-Length: 99999999999999999999999\r\n\r\nhello",
    "empty CL": "Content-Length:\r\n\r\n",
    "space before the colon": "Content-Length : 5\r\n\r\nhello",
    "TE with a tab": "Transfer-Encoding:\tchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "TE xchunked": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE identity": "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "TE chunked, identity": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "folded header": "X-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "bare LF": "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n",
    "bare CR": "X: a\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    "NUL in a header": "X: a\0b\r\nContent-Length: 5\r\n\r\nhello",
    "bad chunk size": "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "chunk size with a sign": "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk size 0x5": "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "overflowing chunk size": "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "chunk longer than said": "Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "chunk ends in LF": "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    "obs-fold TE": "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\nhello",
    "no header name": ": x\r\nContent-Length: 5\r\n\r\nhello",
    "control byte in a name": "X\x01Y: 1\r\nContent-Length: 5\r\n\r\nhello",
    "two CL in two cases": "Content-Length: 5\r\ncontent-length: 0\r\n\r\nhello",
    "CL with a blank inside": "Content-Length: 5 5\r\n\r\nhello",
    "CL with a fraction": "Content-Length: 5.0\r\n\r\nhello",
    "CL in quotes": 'Content-Length: "5"\r\n\r\nhello',
    "CL in another script": "Content-Length: \xb2\r\n\r\nhello",
    "CL ends in LF": "Content-Length: 5\n\r\n\r\nhello",
    "two TE": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a TE and a cow": "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n",
    "TE twice in a list": "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "TE after a comma": "Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
    "TE in quotes": 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE with a parameter": "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "TE after a vertical tab": "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE before a vertical tab": "Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    "TE after a no-break space": "Transfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n",
    "empty TE": "Transfer-Encoding:\r\n\r\n",
    "empty TE and CL": "Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
    "TE with a tab before the colon": "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "header after a blank": " X: a\r\nContent-Length: 5\r\n\r\nhello",
    "CR CR LF": "X: a\r\r\nContent-Length: 5\r\n\r\nhello",
    "head ends in LF": "Content-Length: 5\r\n\nhello",
    "head ends in CR": "Content-Length: 5\r\n\rhello",
    "no colon": "Content-Length 5\r\n\r\nhello",
    "negative chunk size": "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "no chunk size": "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "blank before the chunk size": "Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
    "blank after the chunk size": "Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
    "chunk size with an underscore": "Transfer-Encoding: chunked\r\n\r\n1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk extension ends in LF": "Transfer-Encoding: chunked\r\n\r\n5;a=b\nhello\r\n0\r\n\r\n",
    "CR in a chunk extension": "Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n",
    "NUL in a chunk extension": "Transfer-Encoding: chunked\r\n\r\n5;a\0b\r\nhello\r\n0\r\n\r\n",
    "nothing after a chunk": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
    "LF after a chunk": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    "CR after a chunk": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r0\r\n\r\n",
    "last chunk ends in LF": "Transfer-Encoding: chunked\r\n\r\n0\n\r\n",
    "body ends in LF": "Transfer-Encoding: chunked\r\n\r\n0\r\n\n",
    "TE in a trailer": "Transfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "CL in a trailer": "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 50\r\n\r\n",
}


STRANGE = {
    "TE in capitals": "TRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "last chunk of many zeros": "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n000\r\n\r\n",
    "CL with zeros": "Content-Length: 0002\r\n\r\n{}",
    "CL before a blank": "Content-Length: 2 \r\n\r\n{}",
    "CL of this connection only": "Connection: Content-Length\r\nContent-Length: 2\r\n\r\n{}",
    "TE of this connection only": "Connection: TE, Transfer-Encoding\r\n"
    "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "underscores": "Content_Length: 50\r\nTransfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
}
"""What is unusual, but says clearly where its body ends."""


def _followed(stand: Stand, framing: str, version: str = "1.1") -> bytes:
    """A request to auth-service with a request behind it that patient-service would answer."""
    head = f"POST /api/v1/practices/login HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n"
    more = f"Host: x\r\nConnection: close\r\nAuthorization: {stand.bearer()['Authorization']}\r\n"
    return f"{head}{framing}GET {PATIENTS}?second HTTP/1.1\r\n{more}\r\n".encode("latin-1")


@pytest.mark.parametrize("name", FRAMINGS)
def test_an_ambiguous_frame_is_400_and_smuggles_nothing(stand: Stand, name: str) -> None:
    """What follows such a request is never taken for a request (RFC 9112, 11.2)."""
    assert answers_in(stand.raw(_followed(stand, FRAMINGS[name]))) == [400]
    assert nothing_was_forwarded(stand)


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_but_clear_frame_ends_where_it_says(stand: Stand, name: str) -> None:
    assert answers_in(stand.raw(_followed(stand, STRANGE[name]))) == [200, 200]
    assert [call.body for call in stand.auth.calls] == [b"{}"]
    assert [call.target for call in stand.patient.calls] == [f"{PATIENTS}?second"]
    seen = [name.replace(b"_", b"-") for name, _ in stand.auth.calls[0].headers]
    assert (seen.count(b"content-length"), seen.count(b"transfer-encoding")) == (1, 0)


@pytest.mark.parametrize("framing", ["Connection: keep-alive\r\n", ""])
def test_a_coding_in_http_1_0_is_faulty(stand: Stand, framing: str) -> None:
    """RFC 9112, 6.1: whoever passed it on didn't know what it meant."""
    request = _followed(stand, f"{framing}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "1.0")
    assert answers_in(stand.raw(request)) == [400]
    assert nothing_was_forwarded(stand)
