"""What a mail to the return path says: bounce, complaint, automatic reply, or none of them.

Bytes in, values out. Reports are read by the standards where a mailer keeps them (RFC 3464 status
notifications, RFC 5965 feedback reports, RFC 3834 automatic replies), else by their wording. No
input raises: this is mail from strangers.
"""

from __future__ import annotations

import base64
import html
import json
import quopri
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from email.policy import Compat32
from email.utils import getaddresses
from enum import StrEnum
from itertools import islice
from typing import Any

# What is beyond is not read: a report stands before the mail it returns, and ours are below 100 kB.
LONGEST_MAIL = 1024 * 1024
LONGEST_TEXT = 32 * 1024  # of one part: a report's words stand at its beginning
LONGEST_DIAGNOSTIC = 2000
LONGEST_HEADER = 4000
MOST_LINES = 20_000
MOST_PARTS = 60
MOST_RECIPIENTS = 100
DEEPEST = 8


class Kind(StrEnum):
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    AUTOREPLY = "autoreply"
    OTHER = "other"


class Class(StrEnum):
    """Why a mail did not arrive, by what follows from it."""

    INVALID = "invalid"  # there is no such address
    COMPLAINT = "complaint"
    MAILBOX = "mailbox"  # full, disabled: the mailbox is there, or was
    CONTENT = "content"
    POLICY = "policy"  # blocked, by reputation or by authentication
    SENDER = "sender"  # our own door: credentials, quota, an unverified domain
    SOFT = "soft"  # none of these
    AUTOREPLY = "autoreply"
    NONE = ""


@dataclass(frozen=True, slots=True)
class BounceReport:
    """One mail, read.

    `returned_to` are the addresses the mail itself came to: the return path of the mail it speaks
    of is among them. `message_ids` are those of that mail, as far as they are told.
    """

    kind: Kind
    cls: Class = Class.NONE
    recipients: tuple[str, ...] = ()
    status: str = ""
    diagnostic: str = ""
    message_ids: tuple[str, ...] = ()
    returned_to: tuple[str, ...] = ()
    is_delay: bool = False  # the mail server still tries

    @property
    def recipient(self) -> str:
        return self.recipients[0] if self.recipients else ""

    @property
    def delivery_uuids(self) -> tuple[uuid.UUID, ...]:
        """The deliveries that the mail's own Message-IDs may stand for: <uuid@host>."""
        found = (UUID_ID.match(one) for one in self.message_ids)
        return tuple(dict.fromkeys(uuid.UUID(match.group(1)) for match in found if match))


UUID_ID = re.compile(r"<?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})@", re.IGNORECASE)
ADDRESS = re.compile(r"[\w!#$%&'*+/=?^`{|}~.-]{1,64}@[\w.-]{1,253}[\w]", re.ASCII)
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
URL = re.compile(r"https?://([^\s/<>\"']{1,253})[^\s<>\"']{0,2000}", re.IGNORECASE)
ENHANCED = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
REPLY_CODE = re.compile(r"(?<![\d.])([245]\d\d)(?=[\s:;,-]|$)")

# --- Words ----------------------------------------------------------------------------------------
# Matched in lower case, with addresses replaced by <address>, web addresses by their host, and
# white space by one space. Each list is in the order: English, then other languages.


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


NAME = r"(?:user|recipient|mailbox|account|address|addressee|e?-?mail(?: account| address)?|userid)"
# "Unknown user" itself, in many languages. Nobody says this of anything but an address.
UNKNOWN_USER = _any(
    r"user(?: is)? unknown",
    r"(?:user|recipient|address) (?:doesn'?t|does not) have an? [\w.-]{0,60} ?(?:account|mailbox)",
    r"unknown (?:e-?mail )?(?:local[ -]?part|user|recipient|address|account|mailbox)(?! or )",
    r"(?:recipient|address|addressee|mailbox|account)(?: is)? unknown",
    r"\bunbekannter? (?:benutzer|empf|adress|nutzer)",
    r"(?:empf.{1,2}nger|benutzer|adresse)(?: ist)? unbekannt",
    r"utilisateur inconnu|destinataire inconnu|adresse inconnue",
    r"usuario desconocido|destinatario desconocido|usu.{1,2}rio desconhecido",
    r"utente sconosciuto|destinatario sconosciuto|onbekende gebruiker|nieznany u.ytkownik",
    r"неизвестный (?:пользователь|получатель)|пользователь не найден",
    r"用户不存在|收件人不存在|不存在的用户|未知的收件人|使用者不存在",
    r"ユーザ[ー]?(?:が|は)(?:存在|見つか)|宛先(?:の)?(?:メール)?アドレスが(?:存在|見つか)|"
    r"ディレクトリ(?:に|ー?に)は?見つかりません|該当する(?:ユーザ|メールアドレス)",
)  # fmt: skip
# The same said in other words: true where a code, or the step at which it was said, agrees.
NO_SUCH_ADDRESS = _any(
    rf"no such {NAME}",
    rf"no {NAME} (?:here )?(?:by|with|of) th(?:at|is) name|no mailbox here",
    r"(?:no|not a) (?:valid |known )?(?:local )?(?:recipient|mailbox|user)s?\b(?! policy)",
    rf"{NAME}(?: <address>| name)?(?: here)?[^.;]{{0,60}}? "
    r"(?:do(?:es)?(?: not|n'?t) exist|not exist|"
    r"(?:is )?not (?:listed|recogni[sz]ed|known)|no longer (?:exists?|valid|available|on))",
    rf"invalid (?:final delivery )?{NAME}",
    rf"{NAME} (?:is )?(?:invalid|not valid|non-?existent)",
    rf"non-?existent {NAME}|unknown or illegal {NAME}|illegal {NAME}",
    rf"not listed in|not our customer|isn't in my|{NAME} (?:has been )?(?:deleted|removed)",
    r"(?:destination )?mailbox has moved|recipient no longer|bad destination mailbox",
    r"recipient (?:name )?is not recogni[sz]ed|recipnotfound|recipientnotfound|badrecipient",
    r"(?:requested (?:mail )?action (?:not taken|aborted).{0,5})?mailbox (?:is )?unavailable",
    r"delivery (?:to|attempt).{0,40} unknown|account (?:or domain )?may not exist",
    r"(?:recipient|to) address rejected: undeliverable",
    r"said 550 for rcpt|couldn'?t be found or is invalid|"
    r"(?:wasn'?t|was not) found at|n'existe pas|introuvable|existiert nicht|nicht bekannt",
    r"リストにありません",
    r"no existe|no se encontr|n.{1,2}o existe|non esiste|bestaat niet|nie istnieje",
    r"не существует|не найден|нет такого|не зарегистрирован",
    r"不存在|无此用户|查無|存在しません|見つかりませんでした|見つかりません",
)  # fmt: skip
NOT_FOUND = re.compile(rf"{NAME}(?: name)? (?:is |was |could )?(?:not|n'?t)(?: be)? found")
NO_SUCH_HOST = _any(
    r"\bhost [\w.-]+ not found",
    r"\bhost (?:or domain name )?(?:unknown|not found)|unknown host|no such (?:domain|host)",
    r"domain (?:name )?(?:<address> )?(?:does not exist|not found|is not valid|doesn'?t exist)",
    r"unrout(?:e)?able (?:mail |recipient )?(?:address|domain)|non-?existent (?:domain|host)",
    r"name or service not known|domain (?:of|in) recipient.{0,20}(?:not|invalid)|nxdomain",
    r"(?:invalid|illegal|bad|unknown) (?:recipient )?(?:domain|host)(?: name)?|no mx or a record",
    r"the domain .{0,80}couldn't be found|domain .{0,80}could ?n[o']t be found|"
    r"all relevant mx records point to non-?existent hosts|"
    r"couldn'?t find any host (?:by that )?named?",
    r"has no (?:valid )?(?:mx|mail exchanger)|null ?mx|does not accept (?:any )?(?:e-?)?mail",
)  # fmt: skip
FULL_OR_CLOSED = _any(
    r"(?:mail ?box|mailfolder|mail folder|inbox|account|user|recipient|storage|disk|box|maildir)"
    r"(?: <address>)?[^.;:]{0,40}? (?:is |are |has |exceeds?|exceeded )?(?:\w+ )?"
    r"(?:full|exceed\w*|over.?quota|over (?:its )?(?:quota|limit|allowed)|overflow\w*)",
    r"(?:over|exceed\w*|out of) (?:\w+ ){0,3}(?:quota|storage|mailbox)|quota (?:is )?(?:exceed|"
    r"full|violation)",
    r"full mailbox|not enough (?:storage|space|disk)|insufficient (?:\w+ )?(?:storage|space)",
    r"would (?:exceed|be over).{0,20}quota|too much mail|mbox(?:_| )?(?:is )?full|quota ?exceeded",
    r"(?:mail ?box|account|user|recipient|address|<address>)(?: <address>)?(?: address|"
    r" for <address>)? "
    r"(?:is |has been |was )?(?:\w+ly )?(?:disabled|inactive|suspended|frozen|locked|not active|"
    r"deactivated|"
    r"closed|expired|blocked due to inactivity)",
    r"(?:recipient|user)(?:'?s)? (?:account|mailbox) is blocked",
    r"(?:disabled|inactive|suspended|deactivated|frozen) (?:mail ?box|account|user|recipient|"
    r"address)",
    r"(?:bo.{1,2}te|compte)(?: \w+)? pleine?|quota d.pass|postfach .{0,20}voll|mailbox voll",
    r"buz.n .{0,10}lleno|caixa .{0,20}cheia|casella .{0,20}piena|skrzynka .{0,20}pe.na",
    r"ящик .{0,20}(?:переполнен|заполнен)|(?:переполнен|заполнен)\w* .{0,20}ящик|"
    r"邮箱(?:已满|空间不足|容量)|信箱已滿|"
    r"(?:メール)?(?:ボックス|容量).{0,12}(?:超|いっぱい|満杯|一杯)",
)  # fmt: skip
OUR_SENDER = _any(
    r"sender (?:address |domain |verify )?(?:<address> )?(?:\w+ ){0,2}?"
    r"(?:rejected|denied|refused|unknown|blocked|failed|invalid|not allowed|not accepted|"
    r"does not exist)",
    r"(?:domain of |invalid |unrout(?:e)?able |bad |forged |unauthenticated )senders?",
    r"purported responsible|mail from .{0,60}(?:reject|denied|refused|must|does not|invalid)",
    r"from: (?:header|address)|envelope sender|return.?path|senders? not allowed|"
    r"(?:from|sender)(?:'s)? domain (?:must|does|has|is)|originat(?:or|ing) address",
)  # fmt: skip
NO_RELAY = _any(
    r"relay(?:ing)?(?: access)? (?:is )?(?:not |denied|prohibit)|unable to relay|cannot relay|"
    r"not permitted to relay|relay(?:ing)? denied|no relay",
)
BLOCKED = _any(
    r"spam|\bube\b|\buce\b|junk|virus|malware|phish|trojan|worm\b|unsolicited|"
    r"\bbulk\b|spf\b|dkim|dmarc|senderid|arc fail",
    r"block(?:ed|ing| ?list)|black.?list|deny.?list|\bbanned|dnsbl|\brbl\b|\b\w+bl\b.{0,10}list|"
    r"barracudacentral|reputation|spamhaus|spamcop|sorbs|uribl|surbl|senderbase",
    r"polic(?:y|ies)\b|not authori[sz]ed|unauthori[sz]ed|authentication (?:is )?required|"
    r"authrequired|unauthenticated|authenticat\w+ (?:information|check|fail)|access (?:is )?denied",
    r"reverse dns|ptr (?:dns )?record|\bptr\b|\brdns\b|no (?:valid )?host ?name|"
    r"helo (?:command )?rejected",
    NO_RELAY.pattern,
    r"suspicious|content (?:was |is )?(?:rejected|filter|not)|(?:message|mail|e-?mail) (?:was |"
    r"is |has been |content )?(?:rejected|refus|rejet)",
    r"header error|not (?:allowed|permitted)|not (?:rfc|compliant)|rfc ?5?[38]22|"
    r"please use the smtp server|bad url|"
    r"not accepting (?:connections|mail)|no smtp service|temporarily deferred due to|"
    r"too many (?:errors|unknown|invalid)",
    r"(?:you|message|posting|sender|group|members?)\b.{0,80}(?:do(?:es)? not have|"
    r"don'?t have) permission|"
    r"permission to post|not (?:a )?member|denied by|restricted|prohibit|transaction failed|"
    r"^\W*(?:550|554)? ?rejected",
    r"user complaints|on our block|\bips?\b.{0,40}(?:block|list|reject)|ofr[_-]?\d{3}|ib\d{3}|"
    r"tss\d\d|"
    r"blocage|bloqu|filtr(?:é|age) anti|gesperrt|richtlinie|отклонен|заблокирован|спам|"
    r"垃圾邮件|拒绝|拒否|迷惑",
)  # fmt: skip
MALFORMED = _any(
    r"content (?:error|conversion)|8-?bit data|invalid (?:header|character|message)|data format|"
    r"conversion (?:required|not)|mime (?:error|format)|message (?:size|too (?:big|large))|"
    r"too large|"
    r"size (?:exceed|limit)|exceeds (?:the )?(?:maximum|size|fixed)|message length",
)  # fmt: skip
NOT_YET = _any(
    r"timed? ?-?out|expired|queue ?\.?expired|giving up|could not deliver for|deferred|try again|"
    r"temporar|too many (?:hops|recipients|connections|messages|concurrent)|rate.?limit|"
    r"connection (?:refused|rate|lost|closed|reset)|lost connection|unreachable|not reachable|"
    r"loop|resources|congest|hourly|this hour|retry|overload|greylist|graylist|failing for a long",
)  # fmt: skip
TRY_AGAIN = _any(r"try again|temporar|deferred|malformed|server (?:fail|busy)|lookup timed")
# Google Groups names every possible reason in the reader's language, and none as its own.
A_GROUP = re.compile(r"\bgroups\.google\.com")
OUR_DOOR = _any(
    r"(?:e-?mail address|identity|sender|domain) (?:is |are )?not verified|"
    r"verify your (?:domain|sender|address)",
    r"(?:daily|sending|hourly|monthly) (?:\w+ ){0,2}(?:quota|limit|rate) (?:is |was |"
    r"has been )?exceed|"
    r"maximum sending rate|authentication credentials invalid|invalid (?:api.?key|credentials|"
    r"login)|"
    r"username and password not accepted|authentication failed",
    r"not owned by user|permissions? to send as|not (?:allowed|authori[sz]ed|permitted) to send as|"
    r"sending (?:is |has been |was )?(?:disabled|suspended)|bad outbound sender|"
    r"exceeded the max\w* (?:\w+ ){0,2}per (?:hour|day)",
)  # fmt: skip
# What only a provider's API says, of our account with it. It has spoken to no server of a
# recipient's yet, and where it finds fault with a recipient it does not speak of these.
OUR_ACCOUNT = _any(
    OUR_DOOR.pattern,
    r"(?:out of|not enough|insufficient|no|exceeded|maximum) (?:\w+ ){0,3}credits?\b|unpaid|"
    r"billing|credits? (?:\w+ ){0,2}exceed|payment (?:required|overdue|failed)",
    r"(?:daily|monthly|hourly|sending|plan|account|trial) (?:\w+ ){0,4}(?:quota|limit)s?\b|"
    r"quota (?:\w+ ){0,2}(?:exceed|reach)",
    r"(?:sender|signature|identity|\bfrom\W? (?:address|e-?mail|field|header|domain))\b[^.]{0,60}?"
    r"(?:\bnot (?:\w+ )?(?:found|confirmed|verified|registered|allowed|authori[sz]ed|active)|"
    r"unverified|does not exist|unauthori[sz]ed|invalid)|invalid \W?from\b",
    r"domain (?:\w+ ){0,3}not (?:\w+ )?(?:verified|confirmed|registered)|"
    r"unverified (?:domain|sender)",
    r"account (?:\w+ ){0,3}?(?:pending|suspended|disabled|blocked|deactivated|under review|on hold|"
    r"paused|not (?:\w+ )?(?:activated|approved|active|verified))",
    r"(?:may not|not (?:\w+ )?(?:allowed|permitted|authori[sz]ed|enabled) to) send\b(?! to\b)",
    r"(?:api|server)[ -]?(?:key|token)",
)  # fmt: skip
# Of how fast we ask, which a little patience mends.
TOO_FAST = _any(r"\brate\b", r"per (?:second|minute)", r"too (?:fast|many requests)")

SAID_AT_RCPT = _any(
    r"rcpt[ _]to|after rcpt|to rcpt|recipient address rejected|does not like recipient|smtp:rcpt|"
    r"recipient was rejected|has rejected (?:address|recipient)|rcpt command|need rcpt"
)
SAID_AFTER_DATA = _any(
    r"(?:end of |after |to )data\b|after i sent the message|smtp command data|>>> data <<<|"
    r"\bdot\b.{0,12}(?:command|response)",
)


def clean(text: str, most: int = LONGEST_DIAGNOSTIC) -> str:
    """`text` as one bounded line without control characters."""
    text = text[: most * 4].encode(errors="replace").decode()  # a lone surrogate is no text
    return " ".join(CONTROLS.sub(" ", text).split())[:most]


def without_addresses(text: str) -> str:
    return ADDRESS.sub("<address>", text)


def _folded(text: str) -> str:
    """As the words above expect it. What stands inside an address or a link says nothing: both
    may spell any of them."""
    text = URL.sub(r" \1 ", text)
    text = re.sub(r"[\"'(\[<]{0,3}<address>[\"')\]>]{0,3}", "<address>", without_addresses(text))
    return " ".join(text.lower().replace("’", "'").split())


def is_of_sender(text: str) -> bool:
    """Whether words are said of who sends a mail, and so of every mail."""
    words = _folded(text)
    return any(one.search(words) for one in (OUR_DOOR, OUR_SENDER, NO_RELAY))


def is_of_account(text: str) -> bool:
    """Whether a provider's API says that it takes no mail of us, until we do something."""
    words = _folded(text.replace("_", " "))
    return OUR_ACCOUNT.search(words) is not None and TOO_FAST.search(words) is None


def classify(code: int | None, status: str, text: str) -> Class:
    """The class of one refusal.

    Args:
        code: the SMTP reply code, or a provider's HTTP status; None: found in the text, or unknown.
        status: the enhanced status code ("5.1.1"); "": found in the text, or unknown.
        text: what was said.
    """
    text = text[:LONGEST_TEXT]
    if code in (401, 403, 530, 535):
        return Class.SENDER
    words = _folded(text)
    if OUR_DOOR.search(words):
        return Class.SENDER
    said = ENHANCED.findall(words)
    given = ENHANCED.findall(status)
    # What the remote server said is nearer to the truth than what a relay made of it.
    telling = next((one for one in said if one[1:] != ("0", "0")), None)
    stated = telling or next(iter(given), next(iter(said), None))
    codes = {f"x.{one[1]}.{one[2]}" for one in ([stated] if stated else [])}
    if code is None and (match := REPLY_CODE.search(words)):
        code = int(match.group(1))
    passing = _passing(code, telling, given)
    if A_GROUP.search(words):
        return Class.POLICY
    if FULL_OR_CLOSED.search(words):
        return Class.MAILBOX
    if OUR_SENDER.search(words):
        return Class.POLICY
    if not passing and _is_invalid(words, codes):
        return Class.INVALID
    if stated is not None and stated[1] == "7":
        return Class.POLICY
    if NOT_YET.search(words) and not (stated and stated[1] in "67"):
        return (
            Class.POLICY
            if code is not None and code >= 500 and _strong_block(words)
            else Class.SOFT
        )
    if stated is not None and (stated[1] == "6" or codes == {"x.3.4"}) and not _strong_block(words):
        return Class.CONTENT
    if BLOCKED.search(words):
        return Class.POLICY
    return _by_status(codes, words, passing=passing)


_STRONG = _any(
    r"spam|virus|black.?list|block.?list|\bblocked|dnsbl|\brbl\b|reputation|dmarc|\bspf\b|\bbanned|"
    r"reverse dns|ptr record"
)


def _strong_block(words: str) -> bool:
    return _STRONG.search(words) is not None


def _passing(
    code: int | None, said: tuple[str, str, str] | None, given: list[tuple[str, str, str]]
) -> bool:
    """Whether the server only said "not now"."""
    if said is not None:
        return said[0] == "4"
    if code is not None:
        return 400 <= code < 500
    return bool(given) and given[0][0] == "4"


_INVALID = {"x.1.1", "x.1.2", "x.1.3", "x.1.10", "x.4.4", "x.1.6"}


def _is_invalid(words: str, codes: set[str]) -> bool:
    """Whether an address is definitely told not to exist.

    Some servers say "unknown user" after they have seen the content: that is a reader's filter,
    and says nothing of the address. Where it is not known at which step it was said, the words
    must be the very words or a code must agree; what is left, the rule for soft bounces finds.
    """
    at_rcpt = SAID_AT_RCPT.search(words) is not None
    unknown = UNKNOWN_USER.search(words) is not None
    # "Not found" alone may be a directory that was away.
    wanting = unknown or NO_SUCH_ADDRESS.search(words) is not None
    wanting = wanting or bool(codes and NOT_FOUND.search(words))
    if SAID_AFTER_DATA.search(words) and not at_rcpt:
        return bool(codes & _INVALID) and not BLOCKED.search(words)
    if "x.4.4" in codes and TRY_AGAIN.search(words):
        return False
    if codes & _INVALID:
        return (
            wanting
            or NO_SUCH_HOST.search(words) is not None
            or not (BLOCKED.search(words) or NOT_YET.search(words))
        )
    neutral = codes <= {"x.0.0", "x.1.0", "x.5.0", "x.5.1"}
    if wanting and at_rcpt:
        return True
    if NO_SUCH_HOST.search(words):
        if TRY_AGAIN.search(words):
            return False
        return neutral or codes <= {"x.4.0", "x.4.1"}
    if "x.4.1" in codes:  # Microsoft's directory-based edge blocking
        return "recipient address rejected" in words
    if unknown:
        return neutral
    if not codes and not REPLY_CODE.search(words):
        return wanting  # the mailer that reports it knows it of itself
    return wanting and bool(codes) and neutral and codes != {"x.0.0"}


def _by_status(codes: set[str], words: str, *, passing: bool) -> Class:
    for one in codes:
        subject = one.split(".")[1]
        if one in ("x.1.7", "x.1.8") or subject == "7":
            return Class.POLICY
        if one == "x.2.3" or MALFORMED.search(words):
            return Class.SOFT
        if subject == "2":
            return Class.SOFT if one == "x.2.0" or passing else Class.MAILBOX
        if subject == "6" or one == "x.3.4":
            return Class.CONTENT
    return Class.SOFT


# --- Reading --------------------------------------------------------------------------------------
# Where the returned mail begins inside a text.
RETURNED = re.compile(
    r"^[ \t>*#=_-]*(?:"
    r"(?:begin |start of )?(?:the )?(?:original|returned|undelivered|rejected|bounced|failed|"
    r"unsent)"
    r" (?:e-?mail|message|mail)(?: \w+)?(?: header[s]?| text| info\w*| follows?|"
    r" below)*[ \t]*[:.*#=_-]*$|"
    r"original (?:e-?mail |message |mail )?(?:message |headers? |text |info )*follows.*|"
    r"original mail info.*|original message[ \t]*-+.*|"
    r".{0,60}(?:this is a copy of|below this line is a copy|below is a copy|"
    r"copy of the (?:original )?"
    r"(?:message|mail)).*|message headers? follows?.*|.{0,40}headers? of the original message.*|"
    r"(?:undelivered )?message (?:header|content|text)s? (?:follows?|below).*|"
    r"-{3,}.{0,40}(?:original|returned|unsent|undelivered|copy of).{0,60}|"
    r"message (?:is|was) (?:included|attached|returned) below.*|original mail as follows.*"
    r")",
    re.IGNORECASE | re.MULTILINE,
)
HEADER_LINE = re.compile(r"^[ >]{0,4}[A-Za-z][A-Za-z0-9-]{1,40}:")
MAIL_HEADER = re.compile(
    r"^(?:Received|Return-Path|Message-ID|MIME-Version|From|To|Subject|Date|Delivered-To|"
    r"DKIM-Signature|X-[A-Za-z-]+|Content-Type):",
    re.IGNORECASE,
)
TRULY_A_MAIL = re.compile(r"^(?:Received|Return-Path|Message-ID|From|DKIM-Signature):", re.I | re.M)
MESSAGE_ID = re.compile(r"^[ >\t]{0,6}Message-ID:[ \t\n]{0,4}(<[^<>\s]{3,250}>)", re.I | re.M)
ANY_ID = re.compile(r"<[^<>\s]{1,200}@[^<>\s]{1,200}>")
FIELD = re.compile(
    r"^[ \t>]{0,4}(Original-Recipient|Final-Recipient|X-Actual-Recipient|Action|Status|"
    r"Diagnostic-Code|X-Supplementary-Info|Remote-MTA|Reporting-MTA):[ \t]*"
    r"(.{0,2000}(?:\n[ \t>]{1,4}[ \t]?.{1,500}){0,30})",
    re.IGNORECASE | re.MULTILINE,
)
FROM_A_MAILER = re.compile(
    r"mailer.?daemon|postmaster|mail delivery|mail.?deliver|maildelivery|delivery.?subsystem|"
    r"mail.?administrator|mail.?system|^\W*<>\W*$|^\s*$|bounce-?notif",
    re.IGNORECASE,
)
BOUNCE_SUBJECT = re.compile(
    r"undeliver(?:ed|able|y)|non.?deliver|not be delivered|(?:un)?delivery (?:status|report|"
    r"notif|fail|problem|has failed|delay)|"
    r"deliver(?:y|ing)? (?:error|failure|failed)|fail(?:ed|ure) (?:delivery|notice|notification)|"
    r"failure notice|returned (?:mail|message|to sender)|returning message|"
    r"mail (?:delivery )?(?:failed|failure|error|status|system error)|"
    r"could not (?:be delivered|send)|message (?:delivery has failed|you sent blocked|"
    r"not delivered)|"
    r"postmaster notify|email bounce|bounce notification|message (?:could|can) ?not be|"
    r"warning: (?:could not send|message)|cannot (?:send|deliver)|rejected mail|delayed mail|"
    r"unzustellbar|nicht zustellbar|zustellung|non remis|non distribu|chec de (?:la )?(?:remise|"
    r"distribution)|"
    r"no se (?:puede|ha podido|pudo) entregar|no entregado|non recapit|mancato recapito|"
    r"n.o (?:foi )?entregue|falha na entrega|niet bezorgd|onbestelbaar|nie dostarczon|"
    r"недоставлен|не доставлен|не может быть доставлен|"
    r"配信(?:でき|不能|エラー)|配送(?:でき|不能)|送信(?:でき|エラー)|エラーメール|"
    r"退信|无法投递|投递失败|系统退信|無法投遞",
    re.IGNORECASE,
)
BOUNCE_WORDS = re.compile(
    r"could ?n[o']t be delivered|cannot be delivered|can'?t be delivered|not delivered to|"
    r"unable to deliver|did not reach the following|delivery (?:to .{0,80} )?(?:has )?failed|"
    r"failed permanently|permanent (?:fatal )?(?:error|failure)|permanently rejected|"
    r"returned to sender|"
    r"error (?:has )?occurred while attempting to deliver|undeliverable|was an error delivering|"
    r"has exceeded the retry|addresses had (?:permanent|delivery|transient)|"
    r"an email you sent was rejected|message was (?:not delivered|undeliverable)|"
    r"送信できませんでした|配信できません|не может быть доставлено",
    re.IGNORECASE,
)
AUTOREPLY_SUBJECT = re.compile(
    r"^\W*(?:(?:re|aw|sv|fwd?):\s*)*(?:auto(?:matic|mated|mated|matische)?[ -]?(?:reply|response|"
    r"responder|antwort|"
    r"svar|svar)|out of (?:the )?office|on (?:vacation|holiday|leave)|away from|vacation|"
    r"abwesen|automatische antwort|r.ponse automatique|absence du bureau|absent du|respuesta autom|"
    r"fuera de (?:la )?oficina|resposta autom|risposta automatica|fuori (?:sede|ufficio)|"
    r"automatisch antwoord|afwezig|autoodpowied|автоответ|"
    r"自动(?:回复|答复)|自動(?:返信|応答|回覆))",
    re.IGNORECASE,
)
NOT_A_COMPLAINT = {"not-spam", "auth-failure", "dmarc"}


def read(raw: bytes) -> BounceReport:
    """What one mail says. Never raises, whatever the bytes."""
    try:
        mail = message_from_bytes(_bounded(raw[:LONGEST_MAIL]), policy=_ShortHeaders())
        return _read(_Parts(mail))
    except (RecursionError, ValueError, LookupError, AttributeError, TypeError):
        # The standard parser meets mail it cannot take; such a mail says nothing to us.
        return BounceReport(Kind.OTHER)


class _ShortHeaders(Compat32):
    """The parser's time grows with the square of a header's length."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:LONGEST_HEADER]


MULTIPART = re.compile(rb"multipart/", re.IGNORECASE)


def _bounded(raw: bytes) -> bytes:
    """The beginning of a mail, as much as is read, with one kind of line end.

    The parser compares each line with the boundary of each multipart that it is in.
    """
    raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").lstrip(b"\n")
    raw = b"\n".join(raw.split(b"\n", MOST_LINES)[:MOST_LINES])
    further = next(islice(MULTIPART.finditer(raw), MOST_PARTS, None), None)
    return raw[: further.start()] if further else raw


class _Parts:
    """The parts of a mail by what they are for."""

    def __init__(self, mail: Message) -> None:
        self.mail = mail
        self.texts: list[str] = []
        self.statuses: list[str] = []
        self.feedback: list[str] = []
        self.returned: list[str] = []
        self.wrapped: list[Message] = []
        self.count = 0
        self._sort(mail, 0)
        told = [_split(text) for text in self.texts]
        self.whole = "\n".join(self.texts)[:LONGEST_TEXT]
        self.text = "\n".join(before for before, _ in told)[:LONGEST_TEXT]
        self.returned += [after for _, after in told if after]

    def _sort(self, part: Message, depth: int) -> None:
        self.count += 1
        if self.count > MOST_PARTS or depth > DEEPEST:
            return
        kind = part.get_content_type()
        if "delivery-status" in kind or kind == "message/disposition-notification":
            self.statuses.append(_whole(part))
        elif kind == "message/feedback-report":
            self.feedback.append(_whole(part))
        elif kind in ("message/rfc822", "message/global", "message/partial"):
            self.returned.append(_whole(part))
            payload = part.get_payload()
            inner = payload[0] if isinstance(payload, list) and payload else None
            if isinstance(inner, Message) and inner.get_content_type() == "multipart/report":
                self.wrapped.append(inner)
        elif kind.endswith(("rfc822-headers", "global-headers")):
            self.returned.append(_decoded(part))
        elif part.is_multipart():
            for inner in part.get_payload():
                if isinstance(inner, Message):
                    self._sort(inner, depth + 1)
        elif kind == "text/html":
            self.texts.append(_without_tags(_decoded(part)))
        elif part.get_content_maintype() in ("text", "multipart", "message"):
            self.texts.append(_decoded(part))

    def header(self, name: str) -> str:
        return _words(self.mail.get(name, ""))

    def addresses(self, *names: str) -> tuple[str, ...]:
        found: list[str] = []
        for name in names:
            for value in self.mail.get_all(name, [])[:20]:
                found += ADDRESS.findall(str(value))
        return tuple(dict.fromkeys(found))


def _whole(part: Message) -> str:
    """The text of a part that the parser has already taken apart."""
    payload = part.get_payload()
    if not isinstance(payload, list):
        return _decoded(part)
    raw = b"\n".join(
        inner.as_bytes() for inner in payload[:MOST_PARTS] if isinstance(inner, Message)
    )
    text = raw[:LONGEST_TEXT]
    encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    if encoding == "quoted-printable" or re.search(rb"=\n", text):
        text = quopri.decodestring(text)
    elif encoding == "base64":
        text = base64.b64decode(b"".join(text.split()), validate=False)
    return _text_of(text, "utf-8")


def _decoded(part: Message) -> str:
    try:
        raw = part.get_payload(decode=True)
    except ValueError:
        raw = b""
    if not isinstance(raw, bytes):
        return ""
    return _text_of(raw[: LONGEST_TEXT * 4], part.get_content_charset() or "utf-8")[:LONGEST_TEXT]


def _text_of(raw: bytes, charset: str) -> str:
    if b"\x1b$" in raw or b"\x1b(" in raw:
        charset = "iso-2022-jp"
    for name in (charset, "utf-8"):
        try:
            return raw.decode(name)
        except (LookupError, ValueError):
            continue
    return raw.decode("latin-1")


def _words(value: Any) -> str:
    """A header's text with its encoded words decoded, as far as they can be."""
    try:
        pairs = decode_header(str(value))
    except (ValueError, LookupError, HeaderParseError):
        return str(value)
    return "".join(
        _text_of(text, charset or "utf-8") if isinstance(text, bytes) else text
        for text, charset in pairs
    )


def _without_tags(text: str) -> str:
    # None holds another opening of its kind, or many that never close were each read to the end.
    text = re.sub(
        r"<(style|script)\b(?:(?!<\1\b).){0,20000}?</\1>",
        " ",
        text,
        flags=re.DOTALL | re.IGNORECASE,
    )
    text = re.sub(
        r"<(?:br|/p|/div|/tr|/td|/h\d|/li)\b[^<>]{0,500}>", "\n", text, flags=re.IGNORECASE
    )
    return html.unescape(re.sub(r"<(?!address>)[/!a-zA-Z][^<>@]{0,2000}>", " ", text))


def _split(text: str) -> tuple[str, str]:
    """A text up to where the returned mail begins in it, and the rest."""
    lines = text.split("\n")
    if sum(line.startswith(">") for line in lines) > len(lines) / 2:  # somebody forwarded it
        text = re.sub(r"^> ?", "", text, flags=re.MULTILINE)
    match = RETURNED.search(text, 1)
    cut = match.start() if match and text[: match.start()].strip() else len(text)
    lines = text.split("\n")
    at = 0
    for place, line in enumerate(lines):
        if at >= cut:
            break
        if MAIL_HEADER.match(line) and place:
            following = [one for one in lines[place : place + 6] if one.strip()]
            block = "\n".join(following)
            if FROM_A_MAILER.search(block) or not TRULY_A_MAIL.search(block):
                at += len(line) + 1
                continue
            headers = sum(bool(HEADER_LINE.match(one)) or one[:1] in " \t" for one in following)
            if headers >= 3 and headers >= len(following) - 1 and not FIELD.match(line):
                cut = at
                break
        at += len(line) + 1
    return text[:cut], text[cut:]


def _read(parts: _Parts, depth: int = 0) -> BounceReport:
    returned_to = parts.addresses(
        "To", "Delivered-To", "X-Original-To", "Envelope-To", "X-Delivered-To", "X-Envelope-To"
    )
    report = _notification(parts) or _complaint(parts) or _bounce_or_reply(parts)
    if report.kind is Kind.BOUNCE and not report.status and depth < 2:
        # A gateway may wrap the true report into one of its own, which says nothing.
        for inner in parts.wrapped:
            told = _read(_Parts(inner), depth + 1)
            if told.kind is Kind.BOUNCE and told.status:
                report = told
    ids = [found for text in parts.returned for found in MESSAGE_ID.findall(text)]
    ids += ANY_ID.findall(
        " ".join(str(parts.mail.get(n, "")) for n in ("In-Reply-To", "References"))
    )
    for text in parts.feedback:
        ids += MESSAGE_ID.findall(text)
    known = dict.fromkeys((*report.message_ids, *ids))
    return replace(report, message_ids=tuple(known)[:20], returned_to=returned_to)


def _notification(parts: _Parts) -> BounceReport | None:
    """Amazon SES's notifications, which SNS mails as JSON."""
    told = _object_in(parts.text)
    if isinstance(told.get("Message"), str):
        told = _object_in(told["Message"])
    kind_told = told.get("notificationType") or told.get("eventType")
    if kind_told == "Complaint":
        people = told.get("complaint", {}).get("complainedRecipients", [])
        kind, cls, text, status = Kind.COMPLAINT, Class.COMPLAINT, "", ""
    elif kind_told == "Bounce":
        bounce = told.get("bounce", {})
        people = bounce.get("bouncedRecipients", [])
        first = people[0] if people else {}
        text, status = str(first.get("diagnosticCode", "")), str(first.get("status", ""))
        kind, cls = Kind.BOUNCE, _for_mail(classify(None, status, text))
    else:
        return None
    recipients = [str(one.get("emailAddress", "")) for one in people]
    return BounceReport(
        kind,
        cls,
        _unique(recipients),
        status,
        clean(text),
        message_ids=(str(told.get("mail", {}).get("messageId", ""))[:250],),
    )


def _object_in(text: str) -> dict[str, Any]:
    start = text.find("{")
    try:
        # Not strict: on its way a long line may have been broken.
        told, _ = json.JSONDecoder(strict=False).raw_decode(text, max(start, 0))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _complaint(parts: _Parts) -> BounceReport | None:
    for text in parts.feedback:
        kind = re.search(r"^[ \t]*Feedback-Type:[ \t]*([\w-]+)", text, re.IGNORECASE | re.MULTILINE)
        if kind is None or kind.group(1).lower() in NOT_A_COMPLAINT:
            # A server's report on authentication, or a reader taking it back: nobody complains.
            return BounceReport(Kind.OTHER)
        who = re.findall(
            r"^(?:Original-Rcpt-To|Removal-Recipient):[ \t]*<?([^\s<>]+@[^\s<>]+)",
            text,
            re.IGNORECASE | re.MULTILINE,
        )
        return BounceReport(
            Kind.COMPLAINT,
            Class.COMPLAINT,
            _unique([*who, *_named_to(parts)]),
            diagnostic=clean(f"Feedback-Type: {kind.group(1)}"),
        )
    subject = parts.header("Subject").strip()
    reported = re.match(r"complaint about message from \S+$", subject, re.IGNORECASE)
    asks_to_leave = re.match(r"(?:re: )?unsubscribe\W*$", subject, re.IGNORECASE)
    if (reported and parts.returned) or asks_to_leave:
        # Microsoft's own form of a feedback report, and a reader's program that writes for them.
        who = list(parts.addresses("From")) if asks_to_leave else _named_to(parts)
        return BounceReport(
            Kind.COMPLAINT, Class.COMPLAINT, _unique(who), diagnostic=clean(subject, 200)
        )
    return None


def _bounce_or_reply(parts: _Parts) -> BounceReport:
    subject = re.sub(r"^\s*(?:fwd?|wg|tr):\s*", "", parts.header("Subject"), flags=re.IGNORECASE)
    sender = parts.header("From")
    fields = [_fields(text) for text in parts.statuses]
    people = [one for blocks in fields for one in blocks]
    if not people:
        people = list(_fields(parts.whole))  # the parts of a broken mail are all one text
    from_mailer = bool(
        FROM_A_MAILER.search(sender) or FROM_A_MAILER.search(parts.header("Return-Path") or "x")
    )
    subject_says = BOUNCE_SUBJECT.search(subject) is not None
    words_say = BOUNCE_WORDS.search(" ".join(parts.text.split())) is not None
    failed = parts.header("X-Failed-Recipients")
    certain = bool(people) or bool(failed) or (subject_says and from_mailer)
    certain = certain or (words_say and bool(parts.returned))
    automatic = parts.header("Auto-Submitted").strip().lower()
    replied = (
        AUTOREPLY_SUBJECT.match(subject) is not None
        or automatic.startswith(("auto-replied", "auto-generated (vacation"))
        or any(
            parts.header(name)
            for name in ("X-Autoreply", "X-Autorespond", "X-Auto-Response-Suppress-By")
        )
        or parts.header("Precedence").strip().lower() in ("auto_reply", "auto-reply")
    )
    if replied and not certain and not (from_mailer and words_say):
        return BounceReport(Kind.AUTOREPLY, Class.AUTOREPLY)
    failing = words_say or _names_a_failure(parts.text)
    if certain or (from_mailer and failing) or (subject_says and parts.text):
        return _bounce(parts, people, failed)
    return BounceReport(Kind.OTHER)


def _names_a_failure(text: str) -> bool:
    words = _folded(text)
    return (
        any(
            one.search(words)
            for one in (UNKNOWN_USER, NO_SUCH_ADDRESS, FULL_OR_CLOSED, NO_SUCH_HOST)
        )
        and ADDRESS.search(text) is not None
    )


def _fields(text: str) -> Iterable[dict[str, str]]:
    """The recipients of a delivery status, each with its fields."""
    found: list[dict[str, str]] = []
    current: dict[str, str] = {}
    for block in re.split(r"\n[ \t>]*\n", text):
        current = {}
        for name, value in FIELD.findall(block):
            name = name.lower()
            if name == "final-recipient" and name in current:
                found.append(current)
                current = {}
            current.setdefault(name, " ".join(re.sub(r"\n[ \t>]*", " ", value).split()))
        if current.keys() & {"final-recipient", "original-recipient", "action", "diagnostic-code"}:
            found.append(current)
        if len(found) > MOST_RECIPIENTS:
            break
    return found


STILL_TRYING = re.compile(
    r"not yet been delivered|delivery attempts will continue|will (?:be retried|keep trying|"
    r"continue "
    r"to (?:try|retry))|still being retried|no need to re-?send|warning message only",
    re.IGNORECASE,
)


def _bounce(parts: _Parts, people: list[dict[str, str]], failed: str) -> BounceReport:
    actions = {
        one.get("action", "").split()[0].lower() for one in people if one.get("action", "").split()
    }
    if actions and actions <= {"delivered", "relayed", "expanded"}:
        return BounceReport(Kind.OTHER)  # it arrived
    delayed = "delayed" in actions and "failed" not in actions
    delayed = delayed or (not actions and STILL_TRYING.search(parts.text) is not None)
    named = [one for one in people if _action_of(one) not in ("delivered", "relayed", "expanded")]
    recipients = [address for one in named if (address := _address_of(one))]
    recipients += ADDRESS.findall(failed)
    own = {one.lower() for one in (*parts.addresses("From", "Sender", "Return-Path"),)}
    own |= {one.lower() for one in parts.addresses("To", "Delivered-To")}
    if not recipients:
        recipients = [one for one in _addresses_in(parts.text) if one.lower() not in own]
    if not recipients:
        recipients = [one for one in _named_to(parts) if one.lower() not in own]
        recipients = recipients or _named_to(parts) or _addresses_in(parts.text)
    first = named[0] if named else {}
    status = next(iter(ENHANCED.finditer(first.get("status", ""))), None)
    diagnostic = _diagnostic_of(first)
    stated = ".".join(status.groups()) if status else ""
    cls = _class_of(stated, diagnostic, parts.text)
    if delayed and cls is Class.INVALID:
        cls = Class.SOFT
    return BounceReport(
        Kind.BOUNCE,
        cls,
        _unique(recipients),
        stated,
        clean(diagnostic or _telling_lines(parts.text)),
        is_delay=delayed,
    )


def _action_of(one: dict[str, str]) -> str:
    return (one.get("action", "").split() or [""])[0].lower()


def _address_of(one: dict[str, str]) -> str:
    for name in ("final-recipient", "x-actual-recipient", "original-recipient"):
        if match := ADDRESS.search(one.get(name, "").partition(";")[2] or one.get(name, "")):
            return match.group()
    return ""


def _diagnostic_of(one: dict[str, str]) -> str:
    return one.get("diagnostic-code", "")


LONGEST_VAGUE = 60  # characters: what is shorter may be a beginning, or a program's exit code


def _class_of(status: str, diagnostic: str, text: str) -> Class:
    """By the server's words; where these say nothing definite, by the report's own."""
    said = re.sub(r"^[\w-]{1,20}\s*;\s*", "", diagnostic)
    told = _telling_lines(text)
    phase = _folded(told)
    if said and SAID_AFTER_DATA.search(phase) and not SAID_AT_RCPT.search(phase):
        said += " (in reply to end of data)"
    elif said and SAID_AT_RCPT.search(phase) and not SAID_AFTER_DATA.search(phase):
        said += " (in reply to rcpt to)"
    cls = classify(None, status, said) if said.strip() else Class.SOFT
    vague = not status or status.endswith(".0.0")
    if cls is Class.SOFT and (not said.strip() or (vague and len(said) < LONGEST_VAGUE)):
        cls = classify(None, status, told)
    return _for_mail(cls)


def _for_mail(cls: Class) -> Class:
    """A mail can be forged by whoever was once written to: none speaks for our own provider."""
    return Class.POLICY if cls is Class.SENDER else cls


# What a report says to everybody, and what says nothing of this failure.
BOILERPLATE = re.compile(
    r"^[ \t]*(?:i'?m (?:sorry|afraid)|for further assistance|if you do so|delete your own text|"
    r"this (?:message|is an?|report)|a message that you sent|no further|please (?:check|include|"
    r"contact|verify)|you (?:can|may)|recommend|рекомендуем|for more (?:information|tips|help)|"
    r"learn more|the mail system|original message was received|do not reply|"
    r"possible reasons?).{0,300}$",
    re.IGNORECASE | re.MULTILINE,
)


def _telling_lines(text: str) -> str:
    return " ".join(BOILERPLATE.sub(" ", text).split())[:LONGEST_DIAGNOSTIC]


AT_FAULT = re.compile(
    r"^[ \t>*\"'-]*<?("
    + ADDRESS.pattern
    + r")>?[\"' \t]*(?::|$|\(|\.{3}|\s{2}|\s+(?:on|error|invalid|is|was)\b)|"
    r"(?:rcpt to:?|recipients?:?|delivered to:?|message to:?|delivery to:?|unknown user:?|"
    r"userid:?|user:?|"
    r"address(?:es)?:?|mail to:?|to:)\s*[<\"'(]*(" + ADDRESS.pattern + r")",
    re.IGNORECASE | re.MULTILINE,
)


def _addresses_in(text: str) -> list[str]:
    at_fault = [one or other for one, other in AT_FAULT.findall(text)]
    return at_fault or ADDRESS.findall(text)


def _named_to(parts: _Parts) -> list[str]:
    """Whom the returned mail was for."""
    found: list[str] = []
    for text in parts.returned:
        for match in re.finditer(
            r"^[ >]{0,4}To:((?:.{0,500})(?:\n[ \t].{0,500}){0,20})", text, re.I | re.M
        ):
            found += [address for _, address in getaddresses([match.group(1)]) if "@" in address]
            break
    return found


def _unique(addresses: Iterable[str]) -> tuple[str, ...]:
    good = (clean(one, 320).strip("<>\"' ") for one in addresses)
    return tuple(dict.fromkeys(one for one in good if "@" in one))[:MOST_RECIPIENTS]
