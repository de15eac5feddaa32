"""Who may ask where nobody has a key: what runs on this machine, and no web page."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from luthien_asgi.errors import ApiError
from luthien_asgi.loopback import LoopbackGuard

JSON = {"content-type": "application/json", "content-length": "2"}


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:4000", "127.0.0.1", "127.0.0.1:80", "127.8.9.1:1", "[::1]", "[::1]:4000"]
)
def test_a_loopback_host_is_let_in(host: str) -> None:
    """With any port, and its client's name is `local`."""
    assert LoopbackGuard()({"Host": host, **JSON}).name == "local"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.org",
        "localhost.example.org",
        "127.0.0.1.nip.io",
        "evil@localhost",
        "localhost@evil",
        "128.0.0.1",
        "0.0.0.0",
        "[::2]",
        "[::ffff:127.0.0.1]",
        "::1",
        "127.1",
        "2130706433",
        "localhost:80:80",
        "localhost/",
        "localhost:x",
        "localhost.",
        "127.0.0.1.",
        "foo.localhost",
        "[::1%25lo]",
        "[::1%lo]:4000",
        "[0:0:0:0:0:0:0:1]",
        "0x7f.0.0.1",
        "127.0.0.1:",
        "localhost, evil.example",
        "\u2460\u2461\u2466.0.0.1",
        "127.0.0.1 x",
    ],
)
def test_another_host_is_a_403(host: str) -> None:
    """A rebound DNS name keeps its own Host header."""
    with pytest.raises(ApiError) as caught:
        LoopbackGuard()({"host": host, **JSON})
    assert (caught.value.status, caught.value.type) == (403, "permission_error")


def test_a_request_without_a_host_is_a_403() -> None:
    """Nothing says where it was sent to."""
    with pytest.raises(ApiError) as caught:
        LoopbackGuard()(JSON)
    assert caught.value.status == 403


def test_every_one_of_several_hosts_must_be_loopback() -> None:
    """A second Host header does not help."""
    headers = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example"), (b"content-type", b"application/json")])
    with pytest.raises(ApiError):
        LoopbackGuard()(headers)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080", "HTTP://LOCALHOST"])
def test_a_page_of_this_machine_is_let_in(origin: str) -> None:
    """A loopback origin, as a local web interface has."""
    assert LoopbackGuard()({"host": "localhost", "origin": origin, "sec-fetch-site": "same-site", **JSON}).name == "local"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
        "http://evil.localhost:3000",
        "http://localhost@evil.example",
        "http://evil@localhost",
        "http://localhost, http://evil.example",
        "http://localhost http://evil.example",
        "http://localhost.:3000",
        "http://[::1%25lo]",
        "ws://localhost",
        "//localhost",
        "file://",
        "http://[",
        "localhost",
    ],
)
def test_a_page_of_another_origin_is_a_403(origin: str) -> None:
    """Also an opaque origin."""
    with pytest.raises(ApiError) as caught:
        LoopbackGuard()({"host": "localhost", "origin": origin, **JSON})
    assert caught.value.status == 403


def test_a_cross_site_request_is_a_403_without_an_origin_too() -> None:
    """Browsers say so in `Sec-Fetch-Site`."""
    with pytest.raises(ApiError) as caught:
        LoopbackGuard()({"host": "localhost", "sec-fetch-site": "cross-site", **JSON})
    assert caught.value.status == 403


@pytest.mark.parametrize("site", ["same-site", "same-origin", "none", "SAME-SITE", ""])
def test_what_a_browser_does_not_call_cross_site_is_let_in_with_a_loopback_host_and_origin(site: str) -> None:
    """`same-site` is another port of this machine; a page below `localhost` has an origin that is refused."""
    assert LoopbackGuard()({"host": "localhost", "sec-fetch-site": site, **JSON}).name == "local"
    with pytest.raises(ApiError):
        LoopbackGuard()({"host": "localhost", "origin": "http://evil.localhost", "sec-fetch-site": site, **JSON})


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "Via", "X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto", "X-Real-IP", "CF-Connecting-IP"],
)
@pytest.mark.parametrize("value", ["192.0.2.7", "127.0.0.1", ""])
def test_what_a_proxy_passed_on_is_a_403(header: str, value: str) -> None:
    """Everybody behind it would be local, and what it says of them anybody can write."""
    with pytest.raises(ApiError, match="proxy") as caught:
        LoopbackGuard()({"host": "localhost", header: value, **JSON})
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json2",
        "text/json",
        "",
        "text/plain;application/json",
        "application/json, text/plain",
        "multipart/form-data; a=application/json",
    ],
)
def test_a_body_of_another_type_is_a_415(kind: str) -> None:
    """These are what a page may post without asking first."""
    with pytest.raises(ApiError) as caught:
        LoopbackGuard()({"host": "localhost", "content-type": kind, "content-length": "2"})
    assert caught.value.status == 415


def test_a_body_without_a_type_is_a_415() -> None:
    """With a length or in chunks: a page can post a blob without a type."""
    for announced in ({"content-length": "2"}, {"transfer-encoding": "chunked"}):
        with pytest.raises(ApiError) as caught:
            LoopbackGuard()({"host": "localhost", **announced})
        assert caught.value.status == 415


def test_json_may_have_a_charset_and_a_request_without_a_body_needs_no_type() -> None:
    """`application/json; charset=utf-8` is JSON; a GET is let in; a POST by name is not without a type."""
    guard = LoopbackGuard()
    assert guard({"host": "localhost", "content-type": "Application/JSON; charset=utf-8"}).name == "local"
    assert guard({"host": "localhost", "content-length": "0"}).name == "local"
    guard.check({"host": "localhost"}, method="GET")
    with pytest.raises(ApiError):
        guard.check({"host": "localhost"}, method="post")
