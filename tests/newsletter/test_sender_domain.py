"""What is in DNS for a sending domain is judged as receivers judge it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter import sender_domain
from newsletter.findings import Finding, Level
from newsletter.sender_domain import Dns, aligned, dkim, dmarc, examine, reverse_name, rsa_bits, spf
from tests.dns_server import DnsServer

DOMAIN = "papers.example"
OURS = ip_address("192.0.2.10")
OURS_TOO = ip_address("2001:db8::10")


@pytest.fixture
def server() -> Iterator[DnsServer]:
    server = DnsServer()
    server.start()
    yield server
    server.stop()


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level.value for finding in findings]


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def rsa_key(bits: int, *, wrapped: bool = True) -> str:
    """A public key of that length in DER, as base64."""
    modulus = der(0x02, b"\0" + ((1 << (bits - 1)) | 1).to_bytes((bits + 7) // 8))
    key = der(0x30, modulus + der(0x02, b"\x01\0\x01"))
    if wrapped:
        algorithm = der(0x30, bytes.fromhex("06092a864886f70d010101") + b"\x05\0")
        key = der(0x30, algorithm + der(0x03, b"\0" + key))
    return base64.b64encode(key).decode()


SPF_CASES = {
    "listed": ({DOMAIN: ["v=spf1 ip4:192.0.2.0/24 -all"]}, ["ok", "ok"], "192.0.2.10 may send"),
    "in capitals": ({DOMAIN: ["V=SPF1 IP4:192.0.2.10 ~ALL"]}, ["ok", "ok"], "may send"),
    "not listed": ({DOMAIN: ["v=spf1 ip4:198.51.100.1 ~all"]}, ["ok", "error"], "does not name"),
    "first match counts": (
        {DOMAIN: ["v=spf1 -ip4:192.0.2.10 ip4:192.0.2.0/24 -all"]},
        ["ok", "error"],
        "does not name",
    ),
    "no record": ({DOMAIN: ["google-site-verification=x"]}, ["error"], "has no SPF record"),
    "two records": ({DOMAIN: ["v=spf1 -all", "v=spf1 ~all"]}, ["error"], "2 SPF records"),
    "a word that only begins alike": ({DOMAIN: ["v=spf10 -all"]}, ["error"], "has no SPF"),
    "not SPF": ({DOMAIN: ["v=spf1 ip5:1.2.3.4 -all"]}, ["error"], "“ip5:1.2.3.4”"),
    "all with a name": ({DOMAIN: ["v=spf1 all:here"]}, ["error"], "“all:here”"),
    "no network": ({DOMAIN: ["v=spf1 ip4:192.0.2.300 -all"]}, ["error"], "is no network"),
    "open to all": ({DOMAIN: ["v=spf1 +all"]}, ["error", "ok"], "+all"),
    "neutral": ({DOMAIN: ["v=spf1 ip4:192.0.2.10 ?all"]}, ["warning", "ok"], "?all"),
    "without all": ({DOMAIN: ["v=spf1 ip4:192.0.2.10"]}, ["warning", "ok"], "no “all”"),
    "by include": (
        {DOMAIN: ["v=spf1 include:a.example -all"], "a.example": ["v=spf1 ip4:192.0.2.10 -all"]},
        ["ok", "ok"],
        "1 of 10 lookups",
    ),
    "an include's all is its own": (
        {DOMAIN: ["v=spf1 include:a.example -all"], "a.example": ["v=spf1 ip4:9.9.9.9 ~all"]},
        ["ok", "error"],
        "does not name",
    ),
    "include of nothing": ({DOMAIN: ["v=spf1 include:gone.example -all"]}, ["error"], "no SPF"),
    "include in a circle": ({DOMAIN: [f"v=spf1 include:{DOMAIN} -all"]}, ["error"], "lookups"),
    "by redirect": (
        {DOMAIN: ["v=spf1 redirect=a.example"], "a.example": ["v=spf1 ip4:192.0.2.10 -all"]},
        ["ok", "ok"],
        "ends with -all",
    ),
    "redirect beside all is ignored": (
        {DOMAIN: ["v=spf1 redirect=a.example ~all"], "a.example": ["v=spf1 ip4:192.0.2.10 -all"]},
        ["ok", "error"],
        "ends with ~all",
    ),
    "unknown modifiers are nothing": (
        {DOMAIN: ["v=spf1 ip4:192.0.2.10 op=x exp=why.example -all"]},
        ["ok", "ok"],
        "0 of 10",
    ),
    "it depends on the mail": (
        {DOMAIN: ["v=spf1 exists:%{i}.list.example -all"]},
        ["ok", "warning"],
        "depends on the mail",
    ),
    "eleven lookups": (
        {DOMAIN: ["v=spf1 " + "a " * 11 + "ip4:192.0.2.10 -all"]},
        ["error"],
        "11 DNS lookups",
    ),
}


@pytest.mark.parametrize(("texts", "expected", "said"), SPF_CASES.values(), ids=SPF_CASES.keys())
def test_spf_is_judged_as_receivers_do(
    server: DnsServer, texts: dict[str, list[str]], expected: list[str], said: str
) -> None:
    server.zone = {name: {"TXT": records} for name, records in texts.items()}
    found = list(spf(Dns(server.address), DOMAIN, [OURS]))
    assert levels(found) == expected
    assert said in " ".join(finding.found for finding in found)


def test_spf_follows_a_and_mx_with_their_lengths(server: DnsServer) -> None:
    server.zone = {
        DOMAIN: {"TXT": ["v=spf1 a:web.example/24 mx//64 -all"], "MX": ["10 mail.example."]},
        "web.example": {"A": ["192.0.2.200"]},
        "mail.example": {"AAAA": ["2001:db8::99"]},
    }
    found = list(spf(Dns(server.address), DOMAIN, [OURS, OURS_TOO, ip_address("198.51.100.1")]))
    assert levels(found) == ["ok", "ok", "ok", "error"]


def test_lookups_that_find_nothing_are_counted(server: DnsServer) -> None:
    server.zone = {DOMAIN: {"TXT": ["v=spf1 a:x.example a:y.example a:z.example ~all"]}}
    assert levels(list(spf(Dns(server.address), DOMAIN, []))) == ["warning", "ok"]


DKIM_CASES = {
    "good": (f"v=DKIM1; k=rsa; p={rsa_key(2048)}", "ok", "2048 bits"),
    "good without v": (f"p={rsa_key(2048)}", "ok", "2048 bits"),
    "split by spaces": (f"v=DKIM1; p={rsa_key(2048)[:60]} {rsa_key(2048)[60:]}", "ok", "2048"),
    "the old form of a key": (f"v=DKIM1; p={rsa_key(2048, wrapped=False)}", "ok", "2048 bits"),
    "short": (f"v=DKIM1; p={rsa_key(1024)}", "warning", "1024 bits"),
    "too short": (f"v=DKIM1; p={rsa_key(512)}", "error", "only 512 bits"),
    "revoked": ("v=DKIM1; k=rsa; p=", "error", "revoked"),
    "no base64": ("v=DKIM1; p=!!!", "error", "cannot be read"),
    "no key": (f"v=DKIM1; p={base64.b64encode(b'hello').decode()}", "error", "cannot be read"),
    "cut off": (f"v=DKIM1; p={rsa_key(2048)[:200]}", "error", "cannot be read"),
    "another version": (f"v=DKIM2; p={rsa_key(2048)}", "error", "DKIM2"),
    "an unknown kind": (f"v=DKIM1; k=dsa; p={rsa_key(2048)}", "error", "dsa"),
    "for the old hash only": (f"v=DKIM1; h=sha1; p={rsa_key(2048)}", "error", "sha256"),
    "not for mail": (f"v=DKIM1; s=tlsrpt; p={rsa_key(2048)}", "error", "not for e-mail"),
    "a test": (f"v=DKIM1; t=y; p={rsa_key(2048)}", "warning", "t=y"),
    "Ed25519": (f"v=DKIM1; k=ed25519; p={base64.b64encode(b'k' * 32).decode()}", "warning", "Ed25"),
    "a short Ed25519": ("v=DKIM1; k=ed25519; p=a2tr", "error", "no Ed25519 key"),
    "something else": ("v=spf1 -all", "error", "no key"),
}


@pytest.mark.parametrize(("record", "level", "said"), DKIM_CASES.values(), ids=DKIM_CASES.keys())
def test_a_dkim_key_is_read(server: DnsServer, record: str, level: str, said: str) -> None:
    server.zone = {f"s1._domainkey.{DOMAIN}": {"TXT": [record]}}
    [found] = dkim(Dns(server.address), DOMAIN, ["s1"])
    assert found.level == level
    assert said in found.found


def test_each_selector_is_looked_up_and_none_is_said_so(server: DnsServer) -> None:
    server.zone = {f"b._domainkey.{DOMAIN}": {"TXT": [f"p={rsa_key(2048)}"]}}
    assert levels(list(dkim(Dns(server.address), DOMAIN, ["a", "b"]))) == ["error", "ok"]
    assert levels(list(dkim(Dns(server.address), DOMAIN, []))) == ["warning"]


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\x30\x82" + tail))
def test_no_key_whatever_its_bytes_raises_anything_else(key: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert rsa_bits(key) >= 0


RUA = "rua=mailto:reports@papers.example"
DMARC_CASES = {
    "reject": ({DOMAIN: [f"v=DMARC1; p=reject; {RUA}"]}, ["ok"], "reject"),
    "none": ({DOMAIN: [f"v=DMARC1;p=none;{RUA}"]}, ["ok"], "none"),
    "strict": ({DOMAIN: [f"v=DMARC1; p=reject; adkim=s; {RUA}"]}, ["ok"], "DKIM strict"),
    "test mode": ({DOMAIN: [f"v=DMARC1; p=reject; t=y; {RUA}"]}, ["ok"], "test mode"),
    "no reports": ({DOMAIN: ["v=DMARC1; p=quarantine"]}, ["ok", "warning"], "no reports"),
    "pct is gone": ({DOMAIN: [f"v=DMARC1; p=reject; pct=20; {RUA}"]}, ["ok", "warning"], "pct=20"),
    "no record": ({DOMAIN: ["v=spf1 -all"]}, ["error"], "no DMARC record"),
    "two records": ({DOMAIN: ["v=DMARC1; p=none", "v=DMARC1; p=reject"]}, ["error"], "2 DMARC"),
    "no policy": ({DOMAIN: ["v=DMARC1; adkim=s"]}, ["error"], "no valid policy"),
    "a slip of the pen": ({DOMAIN: [f"v=DMARC1; p=rejct; {RUA}"]}, ["warning", "ok"], "no valid"),
    "the parent's for subdomains": (
        {"example": [f"v=DMARC1; p=reject; sp=quarantine; {RUA}"]},
        ["ok"],
        "quarantine, from example",
    ),
    "the parent's for all": ({"example": [f"v=DMARC1; p=reject; {RUA}"]}, ["ok"], "reject, from"),
    "its own before the parent's": (
        {DOMAIN: [f"v=DMARC1; p=none; {RUA}"], "example": [f"v=DMARC1; p=reject; {RUA}"]},
        ["ok"],
        f"{DOMAIN}: none;",
    ),
}


@pytest.mark.parametrize(
    ("texts", "expected", "said"), DMARC_CASES.values(), ids=DMARC_CASES.keys()
)
def test_dmarc_is_judged_by_rfc_9989(
    server: DnsServer, texts: dict[str, list[str]], expected: list[str], said: str
) -> None:
    server.zone = {f"_dmarc.{name}": {"TXT": records} for name, records in texts.items()}
    found = list(dmarc(Dns(server.address), DOMAIN))
    assert levels(found) == expected
    assert said in " ".join(finding.found for finding in found)


def test_a_long_name_is_not_walked_label_by_label(server: DnsServer) -> None:
    sender_domain.walk(Dns(server.address), "a.b.c.d.e.f.g.h.i.mail.papers.example")
    assert server.asked == [
        f"_dmarc.{name} TXT"
        for name in (
            "a.b.c.d.e.f.g.h.i.mail.papers.example",
            "f.g.h.i.mail.papers.example",
            "g.h.i.mail.papers.example",
            "h.i.mail.papers.example",
            "i.mail.papers.example",
            "mail.papers.example",
            "papers.example",
            "example",
        )
    ]


def test_the_walk_ends_at_a_record_that_says_whose_it_is(server: DnsServer) -> None:
    server.zone = {f"_dmarc.{DOMAIN}": {"TXT": ["v=DMARC1; p=none; psd=n"]}}
    sender_domain.walk(Dns(server.address), f"mail.{DOMAIN}")
    assert server.asked == [f"_dmarc.mail.{DOMAIN} TXT", f"_dmarc.{DOMAIN} TXT"]


PTR = "10.2.0.192.in-addr.arpa"
PTR_CASES = {
    "both ways": (
        {PTR: {"PTR": ["mail.example."]}, "mail.example": {"A": ["192.0.2.10"]}},
        Level.OK,
        "both ways",
    ),
    "the second name": (
        {PTR: {"PTR": ["old.example.", "mail.example."]}, "mail.example": {"A": ["192.0.2.10"]}},
        Level.OK,
        "mail.example",
    ),
    "no name": ({}, Level.ERROR, "no name"),
    "a name that leads elsewhere": (
        {PTR: {"PTR": ["mail.example."]}, "mail.example": {"A": ["192.0.2.11"]}},
        Level.ERROR,
        "leads elsewhere",
    ),
    "a name that leads nowhere": ({PTR: {"PTR": ["mail.example."]}}, Level.ERROR, "elsewhere"),
}


@pytest.mark.parametrize(("zone", "level", "said"), PTR_CASES.values(), ids=PTR_CASES.keys())
def test_a_servers_name_must_lead_back_to_it(
    server: DnsServer, zone: dict[str, dict[str, list[str]]], level: Level, said: str
) -> None:
    server.zone = zone
    found = reverse_name(Dns(server.address), OURS)
    assert found.level == level
    assert said in found.found


def test_a_resolver_that_fails_is_one_finding_and_no_judgement(server: DnsServer) -> None:
    server.broken = {DOMAIN}
    found = list(
        examine(
            lambda: Dns(server.address),
            DOMAIN,
            envelope=DOMAIN,
            selectors=["s1"],
            addresses=[OURS],
        )
    )
    assert [(one.check, one.level) for one in found] == [("dns", Level.WARNING)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("papers.example", "papers.example", True),
        ("Papers.Example.", "papers.example", True),
        ("papers.example", "bounces.papers.example", True),
        ("papers.example", "mypapers.example", False),
        ("papers.example", "provider.example", False),
    ],
)
def test_names_are_aligned_by_whole_labels(one: str, other: str, expected: bool) -> None:
    assert aligned(one, other) is expected


def test_whatever_is_not_in_order_says_what_it_means_and_what_to_do(server: DnsServer) -> None:
    for record in ("", "v=spf1 +all", "v=spf1 ?all", "v=spf1 bad", "v=spf1 -all"):
        server.zone = {DOMAIN: {"TXT": [record]}}
        for found in examine(
            lambda: Dns(server.address),
            DOMAIN,
            envelope="provider.example",
            selectors=["s1"],
            addresses=[OURS],
        ):
            assert found.level == Level.OK or (found.means and found.do)
