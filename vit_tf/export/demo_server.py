"""Gradio on this machine alone: nothing is shared, nothing is loaded from or sent elsewhere."""

import os
import socket
from typing import Any

from vit_tf.export import demo_html


def launch_page(page: Any, host: str, port: int, wait: bool = True) -> str:
    """Serves the page on this machine: nothing is shared, nothing is loaded from elsewhere.

    Args:
      page: of `build_page`.
      host: address to listen at.
      port: to listen at.
      wait: until the process is interrupted.

    Returns:
      The page's address.
    """
    gr = import_gradio()
    fonts = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
    theme = gr.themes.Default(
        primary_hue="indigo", radius_size="lg", font=fonts, font_mono=("ui-monospace", "monospace")
    )
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        theme=theme,
        css=demo_html.CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        max_file_size="64mb",
        prevent_thread_lock=True,
    )
    print(f"{page.title}: {address}  (Ctrl+C ends it)", flush=True)
    if wait:
        page.block_thread()
    return address


def check_port(host: str, port: int) -> None:
    """Raises OSError if something else listens at a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                f"cannot listen at {host}:{port}: {error.strerror}; choose another --port"
            ) from error


def import_gradio() -> Any:
    """The library, told to send nothing anywhere.

    Raises:
      ImportError: if it is not installed, with the command that installs it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            "the demo needs Gradio, which is not installed: pip install -e '.[demo]'"
        ) from error
    return gradio
