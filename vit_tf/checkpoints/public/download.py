"""Downloads public files into a cache, each of them once."""

import http.client
import os
import re
import socket
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

from absl import logging
from tqdm import tqdm

from vit_tf.checkpoints.public.addresses import cache_path, mirrored, web_address
from vit_tf.checkpoints.public.checksums import (
    Checksum,
    check_file,
    checksum_in_name,
    checksums_in_headers,
    parse_checksum,
)
from vit_tf.checkpoints.public.part_file import (
    DownloadError,
    PartFile,
    clear_disk_errors,
    locked_part,
)

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30
# Waits between attempts that brought nothing new; one attempt more than there are waits.
_WAIT_SECONDS = (1, 2, 4, 8)
_RETRIED_STATUS = (408, 429, *range(500, 600))
_RANGE_NOT_SATISFIABLE = 416


def download(
    url: str,
    cache_dir: str | os.PathLike | None = None,
    checksum: str | None = None,
    progress: bool = True,
) -> Path:
    """Returns the local path of a public file, which is downloaded unless the cache holds it.

    A download that was interrupted goes on where it stopped, if the server's file is still the
    same one. The finished file is compared with every checksum that is known: the argument, the
    file's name (torch.hub's form `-<SHA-256 digits>.pth`) and what the server says. Several
    processes may ask for the same file: one downloads it, the others wait.

    Args:
        url: `https://host/path`, `gs://bucket/path` or `hf://owner/repository/path`. With
            `VIT_TF_MIRROR=http://server/prefix` in the environment, `https://host/path` is taken
            from `http://server/prefix/host/path`. Proxies are those of the environment.
        cache_dir: Where files are kept, as `<cache_dir>/<host>/<path>`; by default the
            environment's `VIT_TF_CACHE`, else `~/.cache/vit_tf`.
        checksum: `"sha256:<digits>"` (or md5, crc32c): the digest, or at least its first eight
            digits.
        progress: Whether to show a progress bar.

    Raises:
        DownloadError: The file cannot be reached or written, or disagrees with a checksum.
        ValueError: The URL or the checksum has no valid form.
    """
    address = mirrored(web_address(url))
    path = cache_path(url, cache_dir)
    known = [parse_checksum(checksum, "the checksum given")] if checksum else []
    in_name = checksum_in_name(path.name)
    known += [in_name] if in_name else []
    if not path.exists():
        with clear_disk_errors(path), locked_part(path) as part:
            if part is not None:
                _fill(part, address, path, known, progress)
                return path
    _check_cached(path, known, url)
    return path


def _fill(part: PartFile, address: str, path: Path, known: list[Checksum], progress: bool) -> None:
    """Downloads until the file is whole, checks it and gives it its name."""
    announced = _attempts(part, address, path, progress)
    try:
        check_file(part.path, [*known, *announced])
    except ValueError as error:
        part.remove()
        raise DownloadError(
            f"{address} is not the file that was expected: {error}. The download was removed; "
            "try again, and if it happens again, the file or a proxy in between has changed it."
        ) from None
    part.become(path)


def _attempts(part, address, path, progress) -> list[Checksum]:
    """Receives the whole file in as many attempts as it takes, as long as it gets longer."""
    waits = iter(_WAIT_SECONDS)
    largest = part.size
    with tqdm(
        desc=path.name, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress
    ) as bar:
        while True:
            try:
                return _receive(address, part, bar)
            except DownloadError:
                raise
            except (OSError, http.client.HTTPException) as error:
                _raise_if_final(error, address, path, part)
                reason = error
            if part.size > largest:
                largest, waits = part.size, iter(_WAIT_SECONDS)
            wait = next(waits, None)
            if wait is None:
                raise DownloadError(_advice(address, path, _describe(reason))) from reason
            logging.info("%s: %s; trying again in %d s.", address, _describe(reason), wait)
            time.sleep(wait)


def _raise_if_final(error, address, path, part):
    offline = isinstance(getattr(error, "reason", None), socket.gaierror) and not part.size
    if offline:  # its host has no address: no network, or a wrong name
        raise DownloadError(_advice(address, path, _describe(error))) from error
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code not in (*_RETRIED_STATUS, _RANGE_NOT_SATISFIABLE):
            raise DownloadError(_advice(address, path, _describe(error))) from error


def _receive(address: str, part: PartFile, bar: tqdm) -> list[Checksum]:
    """Appends to the part what is missing; returns the checksums that the server announces.

    Raises:
        OSError, http.client.HTTPException: The connection or the server failed; asking again may
            help.
        DownloadError: It will not help.
    """
    request = urllib.request.Request(
        address, headers={"User-Agent": "vit_tf", "Accept-Encoding": "identity"}
    )
    if part.size and part.version:
        request.add_header("Range", f"bytes={part.size}-")
        request.add_header("If-Range", part.version)
    redirects = _Redirects()
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:
            part.restart(None)
        raise
    with response:
        if not _continues(response, part):
            part.restart(_version(response.headers))
        length = response.headers.get("Content-Length")
        total = None if length is None else part.size + int(length)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise DownloadError(f"{address} was sent as {encoding!r}, not as it is stored.")
        part.check_space((total or 0) - part.size)
        bar.total = total
        bar.update(part.size - bar.n)
        while chunk := response.read(_CHUNK_BYTES):
            part.append(chunk)
            bar.update(len(chunk))
    if total is not None and part.size != total:
        raise ConnectionError(f"the connection ended after {part.size:,} of {total:,} bytes")
    answers = [*redirects.headers, response.headers]
    return [checksum for headers in answers for checksum in checksums_in_headers(headers)]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the headers of redirecting answers: Hugging Face names the checksum only there."""

    def __init__(self):
        self.headers: list[Message] = []

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        self.headers.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _version(headers: Message) -> str | None:
    """Returns what If-Range may name: a strong ETag, else the date of the last change."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _continues(response, part) -> bool:
    """Whether an answer begins where the part ends, and is of the same version.

    Raises:
        ConnectionError: It is neither that nor the whole file.
    """
    if response.status != http.client.PARTIAL_CONTENT:
        return False
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    same = _version(response.headers) in (part.version, None)
    if start and int(start[1]) == part.size and same:
        return True
    part.restart(None)
    raise ConnectionError("the server sent another part of the file than was asked for")


def _check_cached(path, known, url):
    try:
        check_file(path, known)
    except ValueError as error:
        raise DownloadError(
            f"{path} is not the file of {url}: {error}. Delete it to download it again."
        ) from None


def _describe(error) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def _advice(address, path, reason) -> str:
    return (
        f"{address} cannot be downloaded: {reason}. By hand: download it on a machine that can, "
        f"and put it at {path}, or give a local file's path in its place. Behind a firewall, set "
        "https_proxy, or VIT_TF_MIRROR to a server that has the files as <mirror>/<host>/<path>."
    )
