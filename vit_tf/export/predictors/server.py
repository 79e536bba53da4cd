"""A model behind TensorFlow Serving, asked by gRPC or by REST."""

import random
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np
from absl import logging

from vit_tf.export.predictors.base import Predictor
from vit_tf.export.predictors.server_transports import CallFailed, GrpcTransport, RestTransport
from vit_tf.suggestions import did_you_mean

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds
_TIME_TO_EXPLAIN = 5.0  # seconds for the question what an error was about


class ServerPredictor(Predictor):
    """Classifies with a served model.

    A server that cannot be reached, or refuses because it is busy, is asked again, with growing
    pauses; predictions have no effects, so a request that was lost on its way may be sent twice.

    Args:
      address: `grpc://host:8500`, `http://host:8501`, `https://host`, or `host:8500` for gRPC.
      model: the served model's name; TensorFlow Serving's container calls it `"model"`.
      version: its number, or a label that the server's configuration gives; default: the newest.
      timeout: seconds that one request may take.
      retry_for: seconds after which a server that is not available is an error.

    Raises:
      ImportError: for gRPC, if `tensorflow-serving-api` is not installed.
      ValueError: if the address is none.
    """

    def __init__(
        self,
        address: str,
        model: str = "model",
        version: int | str | None = None,
        timeout: float = 60.0,
        retry_for: float = 10.0,
    ):
        if isinstance(version, str) and version.isdigit():
            version = int(version)
        self._address, self._model, self._version = address, model, version
        self._timeout, self._retry_for = timeout, retry_for
        scheme, place = _parse(address)
        transport = GrpcTransport if scheme == "grpc" else RestTransport
        self._transport = transport(place, model, version)

    def outputs(self, signature: str, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Calls a signature that takes `image_bytes`.

        Raises:
          ValueError: if the server has no such model, version or signature, or refuses the request.
          ConnectionError: if it is not available for `retry_for` seconds.
          TimeoutError: if a request takes longer than `timeout`.
        """
        end = time.monotonic() + self._retry_for
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._transport.predict(signature, images, self._timeout)
            except CallFailed as failed:
                if not self._may_pass(failed):
                    raise self._explained(failed, signature) from failed
                if time.monotonic() + pause > end:
                    raise ConnectionError(
                        f"no answer from {self.describe()} for {self._retry_for:g} s: "
                        f"{failed.message}. Does a server listen there (by default gRPC on port "
                        "8500, REST on 8501)?"
                    ) from failed
                if pause == _FIRST_PAUSE:
                    logging.warning(
                        "%s is not available (%s); trying again for %g s",
                        self.describe(),
                        failed.message,
                        self._retry_for,
                    )
                time.sleep(pause * random.uniform(0.5, 1.0))  # not all clients at once
                pause = min(2 * pause, _LONGEST_PAUSE)

    def describe(self) -> str:
        """Address, model and version."""
        if self._version is None:
            version = "the newest version"
        else:
            kind = "version" if isinstance(self._version, int) else "the version labelled"
            version = f"{kind} {self._version}"
        return f"TensorFlow Serving at {self._address}, model {self._model!r}, {version}"

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def _may_pass(self, failed: CallFailed) -> bool:
        """Whether the same request may succeed later: the server is away, busy, or still loads."""
        if failed.code != "NOT_FOUND":
            return failed.code == "UNAVAILABLE"
        try:
            states = self._transport.versions(_TIME_TO_EXPLAIN)
        except CallFailed:
            return False
        wanted = [self._version] if isinstance(self._version, int) else states
        return any(states.get(version) in ("START", "LOADING") for version in wanted)

    def _explained(self, failed: CallFailed, signature: str) -> Exception:
        """The error to raise, with what the server says about what it has."""
        if failed.code == "DEADLINE_EXCEEDED":
            return TimeoutError(
                f"{self.describe()} did not answer within {self._timeout:g} s; send fewer images "
                "at once or allow more time"
            )
        try:
            if failed.code == "NOT_FOUND":
                states = self._transport.versions(_TIME_TO_EXPLAIN)
                known = ", ".join(f"{number} {state}" for number, state in sorted(states.items()))
                return ValueError(f"no {self.describe()}: versions there: {known}")
            if failed.code in ("FAILED_PRECONDITION", "INVALID_ARGUMENT"):
                known = self._transport.signatures(_TIME_TO_EXPLAIN)
                if signature not in known:
                    return ValueError(
                        f"{self.describe()} has no signature {signature!r}."
                        f"{did_you_mean(signature, known)} It has {', '.join(known)}"
                    )
        except CallFailed as also:
            failed = also
        return ValueError(f"{self.describe()} refuses: {failed.code}: {failed.message}")


def _parse(address: str) -> tuple[str, str]:
    """`grpc` and host:port, or `http` and the address as it is."""
    parts = urlsplit(address if "://" in address else f"grpc://{address}")
    try:
        complete = bool(parts.hostname) and bool(parts.port or parts.scheme != "grpc")
    except ValueError:  # a port that is no number
        complete = False
    if parts.scheme not in ("grpc", "http", "https") or not complete:
        raise ValueError(
            f"no address of a server: {address!r}; expected grpc://host:8500 or http://host:8501"
        )
    if parts.scheme == "grpc":
        return "grpc", parts.netloc
    return "http", address
