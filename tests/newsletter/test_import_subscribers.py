"""manage.py import_subscribers: an existing list of people who consented."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from newsletter import subscriptions
from newsletter.models import MAX_INTERESTS, ConsentRecord, Subscriber, Suppression
from tests.factories import make_paper, make_subscriber

pytestmark = pytest.mark.django_db

State = Subscriber.State
HEADER = "address,name,interests,time_zone,hour\n"


@dataclass(frozen=True)
class Imported:
    out: str
    errors: list[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def bring_in(folder: Path, content: str | bytes) -> Imported:
    file = folder / "list.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    out, errors = StringIO(), StringIO()
    call_command("import_subscribers", str(file), stdout=out, stderr=errors)
    return Imported(out.getvalue().strip(), errors.getvalue().splitlines())


def the(address: str) -> Subscriber:
    return Subscriber.objects.get(address=address)


def test_a_good_line_becomes_an_active_subscriber(folder: Path) -> None:
    line = 'ada@example.org,Ada,"robots; video, diffusion ; cs.CL",Europe/London,9\n'
    assert bring_in(folder, HEADER + line) == Imported("1 new, 0 known already, 0 refused", [])
    ada = the("ada@example.org")
    assert (ada.state, ada.name) == (State.ACTIVE, "Ada")
    assert (ada.time_zone, ada.send_hour) == ("Europe/London", 9)
    assert ada.confirmed_at is not None
    assert ada.next_send_at is not None
    assert ada.next_send_at > timezone.now()
    assert [(i.name, i.words, i.categories) for i in ada.interests.all()] == [
        ("robots", "robots", []),
        ("video, diffusion", "video, diffusion", []),
        ("cs.CL", "", ["cs.CL"]),
    ]
    record = ConsentRecord.objects.get()
    assert (record.act, record.way) == (ConsentRecord.Act.IMPORTED, "import of list.csv")


def test_only_the_address_is_needed(folder: Path) -> None:
    assert bring_in(folder, "address\nada@example.org\n").out.startswith("1 new")
    assert bring_in(folder, HEADER + "bob@example.org,,,,\n").out.startswith("1 new")
    for address in ("ada@example.org", "bob@example.org"):
        subscriber = the(address)
        assert (subscriber.time_zone, subscriber.send_hour) == ("UTC", 7)
        assert not subscriber.interests.exists()


def test_columns_may_come_in_any_order(folder: Path) -> None:
    bring_in(folder, "hour,address\n22,ada@example.org\n")
    assert the("ada@example.org").send_hour == 22


def test_an_hour_may_have_a_quarter_and_days_may_be_named(folder: Path) -> None:
    lines = [
        "ada@example.org,7:30,Weekdays",
        "bob@example.org,07:45,",
        "cem@example.org,0,sunday",
        "dan@example.org,7:20,",
        "eve@example.org,24:00,",
        "fay@example.org,7,weekends",
        "gil@example.org,7:,daily",
    ]
    imported = bring_in(folder, "\n".join(["address,hour,days", *lines, ""]))
    assert imported.out == "3 new, 0 known already, 4 refused"
    assert the("ada@example.org").slots == ("UTC", 7, 30, "weekdays")
    assert the("bob@example.org").slots == ("UTC", 7, 45, "daily")
    assert the("cem@example.org").slots == ("UTC", 0, 0, "sunday")
    for error, words in zip(
        imported.errors, ["“7:20”", "“24:00”", "“weekends” is none", "“7:”"], strict=True
    ):
        assert words in error


def test_a_refused_line_is_named_with_its_number_and_loses_nothing_else(folder: Path) -> None:
    imported = bring_in(
        folder,
        HEADER
        + "ada@example.org,,,,\n"
        + "no address,,,,\n"
        + "jürgen@example.org,,,,\n"
        + "zone@example.org,,,Mars/Olympus,\n"
        + "hour@example.org,,,,24\n"
        + "half@example.org,,,,7.5\n"
        + "digit@example.org,,,,²\n"
        + "much@example.org,,,,7,more\n"
        + ",,,,\n"
        + '"quoted@example.org\n",,,,25\n'
        + "bob@example.org,,,,\n",
    )
    assert imported.out == "2 new, 0 known already, 9 refused"
    expected = [
        ("list.csv:3:", "valid email"),
        ("list.csv:4:", "plain Latin letters"),
        ("list.csv:5:", "“Mars/Olympus” is not a time zone"),
        ("list.csv:6:", "“24” is not an hour"),
        ("list.csv:7:", "“7.5” is not an hour"),
        ("list.csv:8:", "“²” is not an hour"),
        ("list.csv:9:", "more fields"),
        ("list.csv:10:", "valid email"),
        ("list.csv:12:", "“25” is not an hour"),
    ]
    for error, (place, words) in zip(imported.errors, expected, strict=True):
        assert error.startswith(place)
        assert words in error
    assert set(Subscriber.objects.values_list("address", flat=True)) == {
        "ada@example.org",
        "bob@example.org",
    }


@pytest.mark.parametrize("field", ["address", "name", "interests", "time_zone", "hour"])
def test_a_nul_refuses_its_line_only(folder: Path, field: str) -> None:
    values = {
        "address": "eve@example.org",
        "name": "",
        "interests": "",
        "time_zone": "",
        "hour": "",
    }
    values[field] += "\x00x"
    line = ",".join(values.values())
    imported = bring_in(folder, HEADER + f"{line}\nbob@example.org,,,,\n")
    assert imported.out == "1 new, 0 known already, 1 refused"
    assert imported.errors[0].startswith("list.csv:2:")
    assert [s.address for s in Subscriber.objects.all()] == ["bob@example.org"]


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder: Path) -> None:
    bring_in(folder, b"\xef\xbb\xbfaddress,name\r\nada@example.org,Ad\xc3\xa4\r\n")
    assert the("ada@example.org").name == "Adä"


def test_quotes_commas_and_line_breaks_inside_a_field_are_read(folder: Path) -> None:
    line = 'ada@example.org,"Lovelace, ""Ada""\n",robots,,\n'
    assert bring_in(folder, HEADER + line).errors == []
    assert the("ada@example.org").name == 'Lovelace, "Ada"'


def test_an_address_that_stands_twice_is_taken_once(folder: Path) -> None:
    lines = "ada@example.org,,robots,,\nADA@Example.ORG,,galaxies,,\n"
    assert bring_in(folder, HEADER + lines).out == "1 new, 1 known already, 0 refused"
    assert [i.words for i in Subscriber.objects.get().interests.all()] == ["robots"]


def test_importing_twice_changes_nothing(folder: Path) -> None:
    content = HEADER + "ada@example.org,Ada,robots,Asia/Tokyo,9\n"
    bring_in(folder, content)
    before = Subscriber.objects.values().get()
    assert bring_in(folder, content).out == "0 new, 1 known already, 0 refused"
    assert Subscriber.objects.values().get() == before
    assert ConsentRecord.objects.count() == 1


def test_who_is_known_keeps_state_and_settings(folder: Path) -> None:
    make_subscriber("active@example.org", interests=("galaxies",), time_zone="Asia/Tokyo")
    make_subscriber("pending@example.org", state=State.PENDING)
    subscriptions.unsubscribe(make_subscriber("gone@example.org"), way="test")
    before = list(Subscriber.objects.order_by("id").values())
    imported = bring_in(
        folder,
        HEADER
        + "active@example.org,,robots,Europe/Berlin,9\n"
        + "Pending@example.org,,,,\n"
        + "GONE@example.org,,,,\n",
    )
    assert imported.out == "0 new, 3 known already, 0 refused"
    assert list(Subscriber.objects.order_by("id").values()) == before


def test_who_is_suppressed_is_refused(folder: Path) -> None:
    subscriptions.suppress("ada@example.org", Suppression.Reason.ERASURE)
    imported = bring_in(folder, HEADER + "Ada@Example.org,,,,\nbob@example.org,,,,\n")
    assert imported.out == "1 new, 0 known already, 1 refused"
    assert "suppressed" in imported.errors[0]


def test_an_international_domain_is_kept_in_ascii(folder: Path) -> None:
    bring_in(folder, "address\nada@bücher.example\n")
    assert the("ada@xn--bcher-kva.example")


def test_more_interests_than_a_subscriber_can_have_are_refused(folder: Path) -> None:
    wishes = ";".join(f"wish {n}" for n in range(MAX_INTERESTS + 1))
    imported = bring_in(folder, HEADER + f"ada@example.org,,{wishes},,\n")
    assert imported.out == "0 new, 0 known already, 1 refused"
    assert str(MAX_INTERESTS) in imported.errors[0]


def test_an_endless_interest_is_refused(folder: Path) -> None:
    imported = bring_in(folder, HEADER + f"ada@example.org,,{'x' * 10_001},,\n")
    assert imported.out == "0 new, 0 known already, 1 refused"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must name the columns"),
        ("name,hour\nAda,7\n", "must name the columns"),
        ("ada@example.org,Ada\n", "must name the columns"),
        ("address,nickname\nada@example.org,Ada\n", "Unknown columns: nickname"),
        ("address,address\nada@example.org,bob@example.org\n", "twice"),
        ("address;name\nada@example.org;Ada\n", "must name the columns"),
        (b"\xff\xfea\x00d\x00", "is not UTF-8 CSV"),
        (b"address\nad\xe4@example.org\n", "is not UTF-8 CSV"),
    ],
)
def test_a_file_that_is_no_such_list_is_refused_whole(
    folder: Path, content: str | bytes, words: str
) -> None:
    with pytest.raises(CommandError, match=words):
        bring_in(folder, content)
    assert not Subscriber.objects.exists()


def test_a_file_that_is_not_there_is_an_error_in_words(folder: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_subscribers", str(folder / "none.csv"))
    with pytest.raises(CommandError, match="directory"):
        call_command("import_subscribers", str(folder))


def test_the_sample_list_is_good() -> None:
    out, errors = StringIO(), StringIO()
    call_command(
        "import_subscribers", "newsletter/sample/subscribers.csv", stdout=out, stderr=errors
    )
    assert errors.getvalue() == ""
    assert Subscriber.objects.active().count() >= 5


WIDE = "address,interests,authors,examples\n"


def test_authors_and_examples_belong_to_the_one_interest_there_is(folder: Path) -> None:
    papers = [make_paper("One", arxiv_id="2505.24864"), make_paper("Two", doi="10.1000/182")]
    line = (
        "ada@example.org,robots,Ada Alvarez ;Bo  Berg,2505.24864v2; https://doi.org/10.1000/182\n"
    )
    assert bring_in(folder, WIDE + line).errors == []
    interest = the("ada@example.org").interests.get()
    assert (interest.name, interest.words) == ("robots", "robots")
    assert interest.authors == ["Ada Alvarez", "Bo Berg"]
    assert interest.example_ids == [paper.pk for paper in papers]


@pytest.mark.parametrize("interests", ["", "robots;graphs"])
def test_beside_none_or_several_they_are_a_subject_of_their_own(
    folder: Path, interests: str
) -> None:
    paper = make_paper("One", arxiv_id="2505.24864")
    bring_in(folder, WIDE + f"ada@example.org,{interests},Ada Alvarez,2505.24864\n")
    own = the("ada@example.org").interests.get(authors=["Ada Alvarez"])
    assert (own.name, own.words, own.example_ids) == ("Ada Alvarez", "", [paper.pk])
    assert the("ada@example.org").interests.count() == (3 if interests else 1)


def test_an_example_that_is_not_known_is_named_and_refuses_nothing(folder: Path) -> None:
    result = bring_in(folder, WIDE + "ada@example.org,robots,,9901.00001;Unheard of\n")
    assert result.out == "1 new, 0 known already, 0 refused"
    assert result.errors == ["list.csv:2: no papers here: 9901.00001; Unheard of"]
    assert the("ada@example.org").interests.get().example_ids == []


@pytest.mark.parametrize(
    "fields",
    [f",{'x' * 101},", f",{';'.join(f'A {n}' for n in range(101))},",
     f"{';'.join(f's {n}' for n in range(MAX_INTERESTS))},Ada Alvarez,"],
)  # fmt: skip
def test_more_than_the_settings_take_is_refused(folder: Path, fields: str) -> None:
    result = bring_in(folder, WIDE + f"ada@example.org,{fields}\n")
    assert result.out == "0 new, 0 known already, 1 refused"
    assert not Subscriber.objects.exists()
