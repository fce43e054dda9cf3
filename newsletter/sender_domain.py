"""What DNS says of a domain that sends mail: SPF, DKIM, DMARC and the names of its servers.

RFC 7208 (SPF), 6376, 8301 and 8463 (DKIM), 9989 (DMARC). Receivers judge a bulk sender by all of
them; a fault shows nowhere else than in their spam folders.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import cast
from urllib.parse import urlsplit

import dns.exception
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype
import dns.resolver
import dns.reversename
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from newsletter.findings import Finding, error, ok, warning

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SECONDS = 4.0  # of one question, all of the resolver's tries together
MOST_LOOKUPS = 10  # RFC 7208, 4.6.4: beyond, the whole record is an error
MOST_VOID = 2  # and of those that find nothing
MOST_RECORDS = 40  # read of one SPF record's includes; far beyond what is valid
LEAST_RSA = 1024  # RFC 8301: shorter keys must not be trusted,
GOOD_RSA = 2048  # and signers should have this
DMARC_LABELS = 8  # RFC 9989, 4.10: a tree walk asks at most so often
DMARC_POLICIES = {"none": 0, "quarantine": 1, "reject": 2}


class Unreachable(Exception):
    """The resolver gave no answer, which says nothing of the domain."""


class Dns:
    """Questions to one resolver.

    Args:
        server: `address` or `address:port`; "": what the system uses.
    """

    def __init__(self, server: str = "") -> None:
        try:
            self.resolver = dns.resolver.Resolver(configure=not server)
        except dns.exception.DNSException as problem:
            raise Unreachable(f"the system names no resolver: {problem}") from None
        if server:
            parts = urlsplit(f"//{server}")
            address = dns.nameserver.Do53Nameserver(parts.hostname or "", parts.port or 53)
            self.resolver.nameservers = [address]
        self.resolver.lifetime = SECONDS

    def _ask(
        self, name: str | dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> list[dns.rdata.Rdata]:
        """The records; none where the name or that kind of it does not exist."""
        try:
            return list(self.resolver.resolve(name, kind, search=False, raise_on_no_answer=False))
        except (
            dns.resolver.NXDOMAIN,
            dns.name.LabelTooLong,
            dns.name.EmptyLabel,
            dns.name.NameTooLong,
        ):
            return []
        except (dns.exception.DNSException, OSError) as problem:
            raise Unreachable(f"no answer for {name}: {type(problem).__name__}") from None

    def texts(self, name: str) -> list[str]:
        rows = cast(list[TXT], self._ask(name, dns.rdatatype.TXT))
        return [b"".join(row.strings).decode("utf-8", "replace") for row in rows]

    def addresses(self, name: str) -> list[Address]:
        four = cast(list[A], self._ask(name, dns.rdatatype.A))
        six = cast(list[AAAA], self._ask(name, dns.rdatatype.AAAA))
        texts = [row.address for row in four] + [row.address for row in six]
        return [ip_address(text) for text in texts]

    def mail_hosts(self, name: str) -> list[str]:
        rows = cast(list[MX], self._ask(name, dns.rdatatype.MX))
        return [str(row.exchange) for row in rows]

    def names_of(self, address: Address) -> list[str]:
        reverse = dns.reversename.from_address(str(address))
        rows = cast(list[PTR], self._ask(reverse, dns.rdatatype.PTR))
        return [str(row.target).rstrip(".") for row in rows]


def examine(
    server: Callable[[], Dns],
    domain: str,
    *,
    envelope: str,
    selectors: Sequence[str],
    addresses: Sequence[Address],
) -> Iterator[Finding]:
    """Everything DNS says of a sending domain.

    Args:
        server: gives the resolver to ask.
        domain: of the From address.
        envelope: of the return path, for which SPF speaks.
        selectors: the names of the DKIM keys in use.
        addresses: of the servers that mail leaves from; none where they are the provider's.
    """
    try:
        resolver = server()
        yield from spf(resolver, envelope, addresses)
        if not aligned(domain, envelope):
            yield warning(
                "spf",
                f"The return path is at {envelope}, the From address at {domain}.",
                "SPF speaks for the return path alone: DMARC then rests on DKIM only.",
                "Have a return path at the From address's domain or below it.",
            )
        yield from dkim(resolver, domain, selectors)
        yield from dmarc(resolver, domain)
        for address in addresses:
            yield reverse_name(resolver, address)
    except Unreachable as problem:
        # One such finding, and not one a question: each would wait for seconds.
        yield warning(
            "dns",
            f"DNS could not be asked: {problem}",
            "What stands in DNS for the sending domain is not known.",
            "Look at this machine's resolver, or name another one in DOCTOR_DNS_SERVER.",
        )


# --- SPF ------------------------------------------------------------------------------------------

_MECHANISM = re.compile(
    r"([+?~-]?)(?:(all)|(include|ip4|ip6|exists)(?=:)|(a|mx|ptr))"  # qualifier, name
    r"(?:(?<!all):([^/]+))?(?:/(\d+))?(?://(\d+))?",  # value, lengths
    re.IGNORECASE,
)
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE)


@dataclass(slots=True)
class Term:
    """One mechanism: whom it matches, and what it then says."""

    qualifier: str
    name: str
    networks: list[Network] = field(default_factory=list)
    child: Spf | None = None


@dataclass(slots=True)
class Spf:
    """One SPF record as DNS has it now, its includes read. `faults` make it void for receivers."""

    domain: str
    terms: list[Term] = field(default_factory=list)
    redirect: Spf | None = None
    faults: list[str] = field(default_factory=list)
    present: bool = True
    lookups: int = 0  # DNS lookups that a receiver needs, includes among them
    void: int = 0
    uncertain: bool = False  # a macro, exists or ptr: it depends on the mail

    def says_of(self, address: Address) -> str:
        """The qualifier that a receiver ends with: + pass, - fail, ~ softfail, ? neutral."""
        for term in self.terms:
            if term.name == "all" or any(address in network for network in term.networks):
                return term.qualifier
            if term.child is not None and term.child.says_of(address) == "+":
                return term.qualifier
        return self.redirect.says_of(address) if self.redirect else "?"

    @property
    def last_word(self) -> str:
        """What it says of everybody else: the qualifier of `all`, "" without one."""
        for term in self.terms:
            if term.name == "all":
                return term.qualifier
        return self.redirect.last_word if self.redirect else ""


def read_spf(resolver: Dns, domain: str, *, left: list[int] | None = None) -> Spf:
    """The record of `domain` with all its includes.

    Args:
        left: how many more records may be read: includes may go round in circles.
    """
    left = [MOST_RECORDS] if left is None else left
    left[0] -= 1
    found = Spf(domain)
    records = [
        text
        for text in resolver.texts(domain)
        if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")
    ]
    if len(records) != 1:
        found.present = bool(records)
        if records:
            found.faults.append(f"{domain} has {len(records)} SPF records instead of one")
        return found
    for text in records[0].split()[1:]:
        if left[0] <= 0:
            break
        if modifier := _MODIFIER.fullmatch(text):
            if modifier[1].lower() == "redirect":
                found.lookups += 1
                found.redirect = _follow(resolver, found, "redirect", modifier[2], left)
        elif mechanism := _MECHANISM.fullmatch(text):
            found.terms.append(_term(resolver, found, mechanism, left))
        else:
            found.faults.append(f"“{text}” in the record of {domain} means nothing in SPF")
    if any(term.name == "all" for term in found.terms):
        found.redirect = None  # RFC 7208, 6.1: ignored then
    return found


def _term(resolver: Dns, spf: Spf, mechanism: re.Match[str], left: list[int]) -> Term:
    qualifier, all_, valued, bare, value, four, six = mechanism.groups(default="")
    name = (all_ or valued or bare).lower()
    term = Term(qualifier or "+", name)
    if name == "all":
        return term
    if name in ("ip4", "ip6"):
        try:
            length = f"/{four}" if four else ""
            term.networks.append(ip_network(value + length, strict=False))
        except ValueError:
            spf.faults.append(f"“{mechanism[0]}” in the record of {spf.domain} is no network")
        return term
    spf.lookups += 1
    if name in ("exists", "ptr") or "%" in value:
        spf.uncertain = True
    elif name == "include":
        term.child = _follow(resolver, spf, "include", value, left)
    else:
        hosts = [value or spf.domain]
        if name == "mx":
            hosts = resolver.mail_hosts(hosts[0])
        found = [address for host in hosts for address in resolver.addresses(host)]
        spf.void += not found
        for address in found:
            length = four if address.version == 4 else six
            network = f"{address}/{length}" if length else str(address)
            term.networks.append(ip_network(network, strict=False))
    return term


def _follow(resolver: Dns, spf: Spf, word: str, domain: str, left: list[int]) -> Spf | None:
    if "%" in domain:
        spf.uncertain = True
        return None
    child = read_spf(resolver, domain, left=left)
    if not child.present:
        spf.faults.append(f"{word} of {domain}, which has no SPF record")
        spf.void += 1
    spf.lookups += child.lookups
    spf.void += child.void
    spf.faults += child.faults
    spf.uncertain = spf.uncertain or child.uncertain
    return child


def spf(resolver: Dns, domain: str, addresses: Sequence[Address]) -> Iterator[Finding]:
    """Whether the record of `domain` is valid, closes with a judgement, and names our servers."""
    found = read_spf(resolver, domain)
    void = "Receivers take it for an error and trust none of your servers by it."
    if not found.present:
        yield error(
            "spf",
            f"{domain} has no SPF record.",
            "Gmail, Yahoo and Outlook refuse or hide bulk mail of a domain without one.",
            f"Publish a TXT record at {domain}: v=spf1, your servers or your provider's include, "
            "and ~all.",
        )
        return
    if found.faults:
        faults = "; ".join(dict.fromkeys(found.faults))
        yield error("spf", f"The SPF record is broken: {faults}.", void, "Mend the record.")
        return
    if found.lookups > MOST_LOOKUPS:
        yield error(
            "spf",
            f"The SPF record of {domain} needs {found.lookups} DNS lookups; {MOST_LOOKUPS} are "
            "allowed.",
            void,
            "Remove includes you no longer use, or name networks by ip4 and ip6 instead.",
        )
        return
    if found.void > MOST_VOID:
        yield warning(
            "spf",
            f"{found.void} lookups of the SPF record of {domain} find nothing.",
            f"Beyond {MOST_VOID} of them, receivers may take the record for an error.",
            "Remove the names that are gone.",
        )
    last = found.last_word
    if last == "+":
        yield error(
            "spf",
            f"The SPF record of {domain} ends with +all.",
            "It allows every machine on earth to send in your name.",
            "End it with ~all or -all.",
        )
    elif last in ("", "?"):
        yield warning(
            "spf",
            f"The SPF record of {domain} says nothing of other servers"
            f"{' (?all)' if last else ': it has no “all”'}.",
            "Receivers cannot tell a forgery by it.",
            "End it with ~all or -all.",
        )
    else:
        yield ok(
            "spf", f"{domain}: {found.lookups} of {MOST_LOOKUPS} lookups, ends with {last}all."
        )
    for address in addresses:
        if found.says_of(address) == "+":
            yield ok("spf", f"{address} may send for {domain}.")
        elif found.uncertain:
            yield warning(
                "spf",
                f"Whether {address} may send for {domain} depends on the mail: the record uses "
                "exists, ptr or a macro.",
                "It cannot be told from here.",
                "Send a test mail and look for spf=pass in its Authentication-Results.",
            )
        else:
            yield error(
                "spf",
                f"The SPF record of {domain} does not name {address}.",
                "Mail from that server fails SPF.",
                f"Add ip{address.version}:{address} to the record.",
            )


# --- DKIM -----------------------------------------------------------------------------------------


def tags_of(record: str) -> dict[str, str]:
    """A tag list (RFC 6376, 3.2): names in lower case; of a name that comes twice, the first."""
    tags: dict[str, str] = {}
    for part in record.split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip().lower(), value.strip())
    return tags


def rsa_bits(key: bytes) -> int:
    """The length of the modulus of a DER public key: SubjectPublicKeyInfo, or RSAPublicKey alone.

    Raises:
        ValueError: it is neither.
    """
    try:
        at, _ = _der(key, 0, 0x30)
        if key[at] == 0x30:
            _, algorithm_end = _der(key, at, 0x30)
            bits, _ = _der(key, algorithm_end, 0x03)
            at, _ = _der(key, bits + 1, 0x30)  # after the number of unused bits
        start, end = _der(key, at, 0x02)
    except IndexError:
        raise ValueError("it ends too early") from None
    if end > len(key):
        raise ValueError("it ends too early")
    return int.from_bytes(key[start:end]).bit_length()


def _der(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends."""
    if data[at] != tag:
        raise ValueError("it is no RSA key")
    length, at = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(data[at : at + size]), at + size
    return at, at + length


def dkim(resolver: Dns, domain: str, selectors: Sequence[str]) -> Iterator[Finding]:
    """Whether the key of each selector is there and of use."""
    if not selectors:
        yield warning(
            "dkim",
            "The DKIM keys were not looked at: DOCTOR_DKIM_SELECTORS names none.",
            "DNS cannot be asked for a key without its selector's name.",
            "Set it to the s= of the DKIM-Signature in a mail you received from here.",
        )
    for selector in selectors:
        yield _dkim_key(resolver, f"{selector}._domainkey.{domain}")


def _dkim_key(resolver: Dns, name: str) -> Finding:
    unsigned = "Receivers take what is signed with this key for unsigned."
    renew = "Publish the record that your signer or provider shows for this selector."
    records = [text for text in resolver.texts(name) if "p" in tags_of(text)]
    if len(records) != 1:
        count = f"{len(records)} keys" if records else "no key"
        return error("dkim", f"There is {count} at {name}.", unsigned, renew)
    tags = tags_of(records[0])
    kind = tags.get("k", "rsa").lower()
    text = re.sub(r"\s+", "", tags["p"])
    fault = ""
    if tags.get("v", "DKIM1") != "DKIM1":
        fault = f"has the version {tags['v']}, not DKIM1"
    elif not text:
        fault = "is revoked: its p= is empty"
    elif kind not in ("rsa", "ed25519"):
        fault = f"is of the unknown kind {kind}"
    elif "h" in tags and "sha256" not in tags["h"].lower().split(":"):
        fault = "does not allow sha256, the only hash in use"
    elif not {"*", "email"} & set(tags.get("s", "*").lower().replace(" ", "").split(":")):
        fault = "is not for e-mail (its s=)"
    if fault:
        return error("dkim", f"The key at {name} {fault}.", unsigned, renew)
    try:
        key = base64.b64decode(text, validate=True)
        bits = rsa_bits(key) if kind == "rsa" else len(key) * 8
    except (binascii.Error, ValueError):
        return error("dkim", f"The key at {name} cannot be read.", unsigned, renew)
    if "y" in tags.get("t", "").lower().split(":"):
        return warning(
            "dkim",
            f"The key at {name} says that it is a test (t=y).",
            "Receivers may treat mail signed with it like unsigned mail.",
            "Take t=y out of the record.",
        )
    if kind == "ed25519":
        if bits != 256:
            return error("dkim", f"The key at {name} is no Ed25519 key.", unsigned, renew)
        return warning(
            "dkim",
            f"The key at {name} is an Ed25519 key.",
            "Several large receivers cannot verify those yet.",
            "Sign with an RSA key too.",
        )
    if bits < LEAST_RSA:
        return error("dkim", f"The key at {name} has only {bits} bits.", unsigned, renew)
    if bits < GOOD_RSA:
        return warning(
            "dkim",
            f"The key at {name} has {bits} bits.",
            "RFC 8301 asks for 2048; some receivers trust it less.",
            "Have your signer or provider make a 2048-bit key under a new selector.",
        )
    return ok("dkim", f"{name}: an RSA key of {bits} bits.")


# --- DMARC ----------------------------------------------------------------------------------------


def aligned(one: str, other: str) -> bool:
    """Whether two names belong together for DMARC's relaxed mode, as far as names alone tell."""
    one, other = one.lower().rstrip("."), other.lower().rstrip(".")
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def walk(resolver: Dns, domain: str) -> list[tuple[str, dict[str, str]]]:
    """RFC 9989's tree walk: the names from `domain` upwards that have one valid record, with its
    tags. It ends at a record that says what it is (psd=y or n)."""
    labels = domain.lower().rstrip(".").split(".")
    found = []
    while labels:
        name = ".".join(labels)
        tags = _dmarc_record(resolver, name)
        if tags:
            found.append((name, tags))
            if tags.get("psd", "u").lower() in ("y", "n"):
                break
        # A long name is not asked label by label.
        labels = labels[-(DMARC_LABELS - 1) :] if len(labels) > DMARC_LABELS else labels[1:]
    return found


def _dmarc_record(resolver: Dns, name: str) -> dict[str, str]:
    """The tags of the one valid record of `name`; empty where there is none, or more than one."""
    records = _dmarc_texts(resolver, name)
    return tags_of(records[0]) if len(records) == 1 else {}


def _dmarc_texts(resolver: Dns, name: str) -> list[str]:
    texts = resolver.texts(f"_dmarc.{name}")
    return [text for text in texts if re.match(r"v\s*=\s*DMARC1\s*(;|$)", text)]


def dmarc(resolver: Dns, domain: str) -> Iterator[Finding]:
    """The policy that receivers find for the From address's domain."""
    publish = f"Publish a TXT record at _dmarc.{domain}: v=DMARC1; p=none; rua=mailto:… to begin."
    ignored = "Receivers ignore it: for them the domain has no DMARC, which bulk senders must have."
    if (count := len(_dmarc_texts(resolver, domain))) > 1:
        found = f"{domain} has {count} DMARC records instead of one."
        yield error("dmarc", found, ignored, "Leave one of them.")
        return
    records = walk(resolver, domain)
    if not records:
        yield error(
            "dmarc",
            f"{domain} has no DMARC record.",
            "Gmail, Yahoo and Outlook ask bulk senders for one.",
            publish,
        )
        return
    name, tags = records[0]
    own = name == domain.lower().rstrip(".")
    if not own:
        # The record of the organisation speaks: the one nearest to the root.
        name, tags = records[-1]
    policy = (tags.get("p") if own else tags.get("sp", tags.get("p"))) or ""
    policy = policy.lower()
    reports = "mailto:" in tags.get("rua", "").lower()
    if policy not in DMARC_POLICIES:
        if not reports:
            found = f"The DMARC record of {name} has no valid policy (p=)."
            yield error("dmarc", found, ignored, "Write p=none, p=quarantine or p=reject.")
            return
        yield warning(
            "dmarc",
            f"The DMARC record of {name} has no valid policy (p=).",
            "Receivers read it as p=none.",
            "Write p=none, p=quarantine or p=reject.",
        )
        policy = "none"
    modes = {"s": "strict", "r": "relaxed"}
    alignment = ", ".join(
        f"{word} {modes.get(tags.get(tag, 'r').lower(), 'relaxed')}"
        for word, tag in (("DKIM", "adkim"), ("SPF", "aspf"))
    )
    testing = tags.get("t", "n").lower() == "y"
    of = "" if own else f", from {name}"
    yield ok(
        "dmarc",
        f"{domain}: {policy}{of}; alignment: {alignment}{'; test mode (t=y)' if testing else ''}.",
        do="Once the reports show that all your mail is aligned, have p=quarantine or p=reject."
        if policy == "none"
        else "",
    )
    if "pct" in tags:
        yield warning(
            "dmarc",
            f"The DMARC record of {name} has pct={tags['pct']}.",
            "RFC 9989 has no pct any more: receivers apply the policy to all mail.",
            "Take it out; t=y asks receivers to be milder than the policy.",
        )
    if not reports:
        yield warning(
            "dmarc",
            f"The DMARC record of {name} asks for no reports (rua=).",
            "Nobody will tell you when your own mail fails.",
            "Add rua=mailto: and an address that somebody or some program reads.",
        )


# --- Names of the servers -------------------------------------------------------------------------


def reverse_name(resolver: Dns, address: Address) -> Finding:
    """Whether a server's address has a name that leads back to it."""
    names = resolver.names_of(address)
    mend = "Whoever gives you the address (the hoster) sets its PTR; its name's A or AAAA is yours."
    refuse = "Gmail refuses mail from servers without a name that is confirmed both ways."
    if not names:
        return error("ptr", f"{address} has no name in DNS (PTR).", refuse, mend)
    for name in names:
        if address in resolver.addresses(name):
            return ok("ptr", f"{address} is {name}, both ways.")
    listed = ", ".join(names)
    return error("ptr", f"{address} is named {listed}, which leads elsewhere.", refuse, mend)
