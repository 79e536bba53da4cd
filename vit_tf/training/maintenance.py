"""Compute Engine's notices that this machine is about to be taken away, TPU VMs included.

The metadata server is asked, as Google's documentation of host maintenance and of preemptible
machines says: `instance/maintenance-event` turns from `NONE` to `TERMINATE_ON_HOST_MAINTENANCE`,
`instance/preempted` from `FALSE` to `TRUE`, half a minute or more before the machine stops.
"""

import contextlib
import http.client
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_KEYS = ("maintenance-event", "preempted")
_POLL_SECONDS = 5.0
_TIMEOUT_SECONDS = 3.0
# What tells a machine of Compute Engine without asking the network (google-auth looks there too).
_PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")


@contextlib.contextmanager
def watch_for_maintenance(notify: Callable[[str], None], tpu: bool) -> Iterator[None]:
    """Asks for notices in the background where there may be some.

    That is on TPUs, on Compute Engine, and where `GCE_METADATA_HOST` names a server, as Google's
    libraries have it. If that does not answer at first it is left alone.

    Args:
      notify: called once, from another thread, with the name of the notice.
      tpu: whether the run is on a TPU.
    """
    if not (tpu or os.environ.get("GCE_METADATA_HOST") or _on_compute_engine()):
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_poll, args=(notify, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def current_notice() -> str | None:
    """The notice that stands now, or None.

    Raises:
      OSError: if no metadata server answers.
    """
    host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    values = {key: _metadata(host, key) for key in _KEYS}
    if values["maintenance-event"].startswith("TERMINATE"):
        return values["maintenance-event"]
    return "PREEMPTED" if values["preempted"] == "TRUE" else None


def _poll(notify: Callable[[str], None], stop: threading.Event) -> None:
    answered = False
    while not stop.is_set():
        try:
            notice = current_notice()
        except OSError:
            if not answered:
                return
        else:
            answered = True
            if notice:
                notify(notice)
                return
        stop.wait(_POLL_SECONDS)


def _metadata(host: str, key: str) -> str:
    """A value of the instance; empty where the server does not know it."""
    # Not urllib: it would ask a proxy of the environment for this address of the machine's own.
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_SECONDS)
    try:
        path = f"/computeMetadata/v1/instance/{key}"
        connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        return text.strip() if response.status == 200 else ""
    except http.client.HTTPException as error:
        raise OSError(f"{host} is no metadata server: {error!r}") from error
    finally:
        connection.close()


def _on_compute_engine() -> bool:
    try:
        return _PRODUCT_NAME.read_text().startswith("Google")
    except OSError:
        return False
