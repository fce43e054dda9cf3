"""One polite request at a time, and only whole answers."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papers.sources import (
    BadAnswer,
    Busy,
    Refused,
    ServerFailed,
    SourceError,
    Unreachable,
    Validator,
)
from papers.sources.client import MAX_WAIT, _followed, rate_limited, retry_after
from papers.sources.recorded import Saved
from tests.sources_server import (
    USER_AGENT,
    Kept,
    Turns,
    asking,
    bomb,
    dribbled,
    serving,
    silent,
    written,
)

HEAD = b"HTTP/1.1 200 OK\r\n"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


# -- asking


def test_a_request_says_who_asks_and_nothing_else_of_us() -> None:
    turns = Turns()
    with serving(Saved("/list?set=cs:cs:LG", b"papers")) as server:
        answer = asking(turns).get(f"{server.url}/list", {"set": "cs:cs:LG", "from": "2026-11-20"})
    assert answer.content == b"papers"
    (asked,) = server.asked
    assert asked.params == {"set": "cs:cs:LG", "from": "2026-11-20"}
    assert asked.headers.pop("Host") in server.url
    assert asked.headers == {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"}
    assert turns.hosts == [server.url.removeprefix("http://")]


def test_every_request_takes_its_turn_and_gives_it_back() -> None:
    turns = Turns()
    moved = Saved("/old", status=302, headers={"Location": "/new"})
    with serving(moved, Saved("/new", b"here"), Saved("/broken", status=500)) as server:
        client = asking(turns)
        assert client.get(f"{server.url}/old").content == b"here"
        with pytest.raises(ServerFailed):
            client.get(f"{server.url}/broken")
    assert (len(turns.hosts), turns.inside, turns.most) == (3, 0, 1)


def test_cookies_are_not_kept() -> None:
    with serving(Saved("/", b"one", headers={"Set-Cookie": "who=we; Path=/"})) as server:
        client = asking()
        client.get(f"{server.url}/")
        client.get(f"{server.url}/")
    assert not any("Cookie" in asked.headers for asked in server.asked)


def test_neither_passwords_nor_a_proxy_of_the_environment_reach_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving(Saved("/", b"one")) as server:
        assert asking().get(f"{server.url}/").content == b"one"
    assert "Authorization" not in server.asked[0].headers


def test_other_hosts_are_asked_through_the_proxy_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns()
    with serving(Saved("/list", b"by proxy"), Saved("/slow", dribbled(HEAD, b"X: y\r\n"))) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert asking(turns).get("http://papers.example/list").content == b"by proxy"
        with pytest.raises(Unreachable, match="no whole answer"):
            asking(turns, timeout=0.5).get("http://papers.example/slow")
    assert turns.hosts == ["papers.example", "papers.example"]


@pytest.mark.parametrize(
    "url",
    ["", "papers.example", "file:///etc/passwd", "ftp://papers.example/", "http://",
     "http://me:secret@papers.example/", "http://[broken/", "http://papers.example:port/"],
)  # fmt: skip
def test_what_is_no_plain_web_address_is_not_asked(url: str) -> None:
    turns = Turns()
    with pytest.raises(Refused) as refused:
        asking(turns).get(url)
    assert "secret" not in str(refused.value)
    assert turns.hosts == []


# -- redirects


def test_a_way_to_another_host_or_port_is_named_and_not_taken() -> None:
    with serving(Saved("/there", b"elsewhere")) as other:
        port = other.url.rpartition(":")[2]
        for place in (f"http://localhost:{port}/there", f"{other.url}/there", "//evil.example/"):
            moved = Saved("/", status=301, headers={"Location": place})
            with serving(moved) as server, pytest.raises(Refused, match="is not followed"):
                asking().get(f"{server.url}/")
        assert other.asked == []
        asking().get(f"{other.url}/there")


@pytest.mark.parametrize(
    ("here", "there", "followed"),
    [
        ("http://a.example/x", "https://a.example/y", True),
        ("https://a.example/x", "/y", True),
        ("https://a.example/x", "https://a.example:443/y", True),
        ("https://a.example/x", "http://a.example/y", False),
        ("https://a.example/x", "https://b.example/y", False),
        ("https://a.example/x", "https://a.example:8443/y", False),
        ("https://a.example/x", "https://me@a.example/y", False),
        ("https://a.example/x", "ftp://a.example/y", False),
        ("https://a.example/x", "https://[broken", False),
    ],
)
def test_a_redirect_stays_on_its_host_and_gets_no_less_safe(
    here: str, there: str, followed: bool
) -> None:
    if followed:
        assert _followed(here, there).endswith("/y") or _followed(here, there).endswith("443/y")
    else:
        with pytest.raises(Refused):
            _followed(here, there)


def test_a_circle_of_redirects_ends() -> None:
    moved = Saved("/", status=302, headers={"Location": "/"})
    with serving(moved) as server, pytest.raises(BadAnswer, match="leads from one address"):
        asking().get(f"{server.url}/")
    assert len(server.asked) == 4


# -- whole answers only


def test_packed_answers_are_unpacked() -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"two")
    with serving(Saved("/", packed, headers={"Content-Encoding": "gzip"})) as server:
        assert asking().get(f"{server.url}/").content == b"one two"


def test_an_answer_in_chunks_is_put_together() -> None:
    body = written(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n")
    with serving(Saved("/", body)) as server:
        assert asking().get(f"{server.url}/").content == b"one two"


GZIP = gzip.compress(b"papers " * 1000, mtime=0)


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 100\r\n\r\nonly this",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\none",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nthree\r\none\r\n0\r\n\r\n",
        HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + GZIP[:-20],
        HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + GZIP + b"and more",
        HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\nnot packed",
        HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n",
        HEAD + b"Content-Encoding: br\r\nConnection: close\r\n\r\n" + GZIP,
    ],
)  # fmt: skip
def test_an_answer_cut_off_or_broken_is_no_answer(answer: bytes) -> None:
    with serving(Saved("/", written(answer))) as server, pytest.raises(BadAnswer):
        asking().get(f"{server.url}/")


def test_an_answer_is_bounded_packed_and_unpacked() -> None:
    packed = {"Content-Encoding": "gzip"}
    with serving(
        Saved("/large", bytes(2_000_000)),
        Saved("/bomb", bomb(200), headers=packed),
        Saved("/many", gzip.compress(b"") * 100_000, headers=packed),
        Saved("/endless", dribbled(HEAD + b"\r\n", bytes(100_000), pause=0)),
    ) as server:
        client = asking(max_answer=1_000_000)
        for place in ("/large", "/bomb", "/many", "/endless"):
            with pytest.raises(BadAnswer, match="more than 1 MB"):
                client.get(server.url + place)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"Content-Length: 1000000\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        HEAD + b"\r\n",
        HEAD + b"X-Endless: ",
        b"",
    ],
)
def test_an_answer_that_never_ends_is_given_up_in_time(head: bytes) -> None:
    piece = b"1\r\nx\r\n" if b"chunked" in head else b"x"
    with serving(Saved("/", dribbled(head, piece))) as server:
        before = time.monotonic()
        with pytest.raises(Unreachable, match=r"no whole answer within 0\.7 seconds"):
            asking(timeout=0.7, silence=5).get(f"{server.url}/")
        assert time.monotonic() - before < 3


def test_silence_hanging_up_and_nobody_there_are_told_apart_in_words() -> None:
    with serving(Saved("/silent", silent(2)), Saved("/hung-up", written())) as server:
        with pytest.raises(Unreachable, match="keeps silent"):
            asking(silence=0.3).get(f"{server.url}/silent")
        with pytest.raises(Unreachable, match="cannot be reached"):
            asking().get(f"{server.url}/hung-up")
    with pytest.raises(Unreachable, match="cannot be reached: Connection refused"):
        asking().get(f"{server.url}/?token=secret")
    with pytest.raises(Unreachable, match="cannot be reached") as unknown:
        asking().get("http://papers.invalid/?token=secret")
    assert "secret" not in str(unknown.value)


def answering_with(content: bytes) -> str:
    """The address of a listener that gives one client these bytes, whatever it asks."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            client.recv(65536)
            client.sendall(content)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/"


STATUS = st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 301 Moved", b"HTTP/1.0 503 x", b"HTTP/9"])
HEADER = st.sampled_from(
    [
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Transfer-Encoding: chunked",
        b"Content-Encoding: gzip",
        b"Location: ///",
        b"Location: \xff",
        b"Date: never",
        b"ETag: \xe9",
        b"RateLimit: ;;=,",
        b"Retry-After: 1e9",
        b"Link: <>; rel=next",
        b"Link: ;;;",
        b"no header",
        b": ",
    ]
)


@given(STATUS, st.lists(HEADER | st.binary(max_size=20), max_size=4), st.binary(max_size=60))
@settings(max_examples=150, deadline=None)
def test_whatever_bytes_come_only_an_answer_or_a_source_error_comes_out(
    status: bytes, headers: list[bytes], body: bytes
) -> None:
    content = b"\r\n".join([status, *headers, b"", body])
    with suppress(SourceError):
        answer = asking(timeout=5, silence=3).get(answering_with(content))
        assert answer.status == 200


# -- what servers ask of us


@pytest.mark.parametrize(
    ("status", "headers", "error", "wait"),
    [
        (429, {"Retry-After": "17"}, Busy, 17),
        (503, {"Retry-After": "600"}, Busy, 600),
        (503, {}, Busy, None),
        (429, {"RateLimit": '"api";r=0;t=55'}, Busy, 55),
        (429, {"Retry-After": "5", "RateLimit": '"api";r=0;t=55'}, Busy, 5),
        (503, {"Retry-After": "99999999"}, Busy, MAX_WAIT),
        (503, {"Retry-After": "-5"}, Busy, None),
        (503, {"Retry-After": "soon"}, Busy, None),
        (408, {}, Busy, None),
        (500, {}, ServerFailed, None),
        (502, {"Retry-After": "30"}, ServerFailed, 30),
        (404, {}, Refused, None),
        (403, {}, Refused, None),
        (204, {}, BadAnswer, None),
        (206, {}, BadAnswer, None),
        (304, {}, BadAnswer, None),
        (302, {}, BadAnswer, None),
    ],
)
def test_a_status_says_whether_and_when_to_ask_again(
    status: int, headers: dict[str, str], error: type[SourceError], wait: float | None
) -> None:
    with serving(Saved("/", b"words", status, headers)) as server:
        with pytest.raises(error) as caught:
            asking().get(f"{server.url}/", {"token": "secret"})
        assert type(caught.value) is error
        assert caught.value.retry_after == wait
        assert "secret" not in str(caught.value)


def test_a_status_may_be_asked_for() -> None:
    with serving(Saved("/", b"why not", 400)) as server:
        answer = asking().get(f"{server.url}/", also=(400,))
    assert (answer.status, answer.content) == (400, b"why not")


def test_a_date_to_come_back_is_counted_from_the_servers_own_clock() -> None:
    now = datetime.now(UTC)
    headers = {
        "Date": format_datetime(now - timedelta(hours=2), usegmt=True),
        "Retry-After": format_datetime(now - timedelta(hours=1), usegmt=True),
    }
    with serving(Saved("/", b"", 503, headers)) as server, pytest.raises(Busy) as busy:
        asking().get(f"{server.url}/")
    assert busy.value.retry_after == 3600


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api";r=1;t=55'}, 0),
        ({"RateLimit": '"burst";r=0;t=5, "day";r=0;t=900'}, 900),
        ({"RateLimit": '"burst";r=3;t=5, "day";r=0;t=900'}, 900),
        ({"RateLimit": '"api";r=0', "RateLimit-Policy": '"api";q=500;w=300'}, 300),
        ({"RateLimit": '"b";r=0', "RateLimit-Policy": '"a";q=5;w=1, "b";q=9;w=60'}, 60),
        ({"RateLimit": "limit=500, remaining=0, reset=7"}, 7),
        ({"RateLimit": "limit=500, remaining=2, reset=7"}, 0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 30),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(NOW.timestamp() + 40)}, 40),
        ({"RateLimit-Remaining": "0"}, 0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "99999999"}, MAX_WAIT),
        ({"RateLimit": '"api";r=0;t=x', "RateLimit-Policy": "nonsense"}, 0),
        ({}, 0),
    ],
)
def test_a_used_up_allowance_says_how_long_to_wait(headers: dict[str, str], wait: float) -> None:
    assert rate_limited(headers, NOW) == wait


def test_the_wait_comes_with_the_answer() -> None:
    headers = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"api";q=500;w=300'}
    with serving(Saved("/", b"papers", headers=headers)) as server:
        assert asking().get(f"{server.url}/").wait == 55


HEADER_TEXT = st.text(alphabet='"rtwqapi =;,0123456789.-\u00e9', max_size=60) | st.text()


@given(HEADER_TEXT, HEADER_TEXT, HEADER_TEXT)
def test_no_header_makes_us_wait_for_ever(one: str, two: str, three: str) -> None:
    headers = {"RateLimit": one, "RateLimit-Policy": two, "RateLimit-Remaining": three,
               "RateLimit-Reset": one}  # fmt: skip
    assert 0 <= rate_limited(headers, NOW) <= MAX_WAIT
    seconds = retry_after(one, NOW)
    assert seconds is None or 0 <= seconds <= MAX_WAIT


# -- only what has changed


def test_an_answer_offers_what_it_is_called_and_the_caller_decides_to_keep_it() -> None:
    kept = Kept()
    saved = Saved("/feed", b"papers", headers={"ETag": '"a1"', "Last-Modified": "yesterday"})
    with serving(saved) as server:
        client = asking(validators=kept)
        url = f"{server.url}/feed?day=1"
        answer = client.get(f"{server.url}/feed", {"day": "1"}, conditional=True)
        assert answer.validator == Validator(url, '"a1"', "yesterday")
        assert client.get(url, conditional=True).content == b"papers"  # nothing was kept
        kept.known[url] = ('"a1"', "yesterday")
        again = client.get(url, conditional=True)
        assert (again.unchanged, again.content, again.validator) == (True, b"", None)
        assert client.get(url).content == b"papers"  # not asked conditionally
    assert [asked.headers.get("If-None-Match") for asked in server.asked] == [
        None, None, '"a1"', None
    ]  # fmt: skip


def test_without_a_tag_the_day_of_the_last_change_is_asked_for() -> None:
    day = "Fri, 20 Nov 2026 05:00:00 GMT"
    with serving(Saved("/", b"papers", headers={"Last-Modified": day})) as server:
        url = f"{server.url}/"
        kept = Kept({url: ("", day)})
        assert asking(validators=kept).get(url, conditional=True).unchanged
    assert server.asked[0].headers["If-Modified-Since"] == day


def test_an_answer_knows_when_it_was_given_unless_its_clock_is_wrong() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    hour_ago = now - timedelta(hours=1)
    with serving(
        Saved("/right", headers={"Date": format_datetime(hour_ago, usegmt=True)}),
        Saved("/wrong", headers={"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        Saved("/none", headers={"Date": "today"}),
    ) as server:
        assert asking().get(f"{server.url}/right").at == hour_ago
        for place in ("/wrong", "/none"):
            assert abs(asking().get(server.url + place).at - now) < timedelta(minutes=1)


def test_the_next_address_is_told() -> None:
    link = {"Link": '<https://hub.example/list?p=1>; rel="next"'}
    with serving(Saved("/", b"[]", headers=link)) as server:
        assert asking().get(f"{server.url}/").next_url == "https://hub.example/list?p=1"
