"""The weights that timm and torchvision publish: in a cache of this machine, or fetched.

Without a connection their libraries try for most of a minute. So the caches are looked at first,
and a connection is tried for three seconds before anything is fetched.
"""

import os
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

import torch

from codistill.errors import InputError, reason
from codistill.importing import optional

_SECONDS = 3.0
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HOW_TO_GO_ON = (
    "give --pretrained false to start from nothing, or --weights FILE if you have a file of them"
)


class NoWeightsError(InputError):
    """Published weights are in no cache, and cannot be fetched."""


def timm_weights(published: Any, name: str) -> dict[str, Any]:
    """What timm's `pretrained_cfg_overlay` needs to load published weights from a cache.

    Args:
        published: timm's `PretrainedCfg` of the model.
        name: the network's name, for messages.

    Returns:
        nothing, if timm has to fetch the weights and a connection is there.

    Raises:
        NoWeightsError: the weights are in no cache, and there is no connection.
    """
    hub = _hub()
    if hub is not None and published.hf_hub_id and published.custom_load != "hf":
        repository, _, revision = published.hf_hub_id.partition("@")
        for file in (published.hf_hub_filename,) if published.hf_hub_filename else _HUB_FILES:
            cache = hub.constants.HF_HUB_CACHE
            found = hub.try_to_load_from_cache(repository, file, cache, revision or None)
            if isinstance(found, str):
                return {"file": found, "custom_load": False}
    if published.url and (found := _in_torch_hub(published.url)):
        return {"file": found}
    if hub is not None and published.hf_hub_id:
        if hub.constants.HF_HUB_OFFLINE:
            _refuse(name, "huggingface.co", "HF_HUB_OFFLINE is set")
        _require_connection(name, hub.constants.ENDPOINT)
    elif published.url:
        _require_connection(name, published.url)
    return {}


def published_mean(name: str) -> tuple[float, ...] | None:
    """The mean per channel, 0 to 255, that published weights want of images, as far as known.

    Args:
        name: of a network.
    """
    library, _, model = name.partition("/")
    if library != "timm":
        return None
    published = optional("timm", f"network {name}").get_pretrained_cfg(model)
    return published and tuple(255 * x for x in published.mean)


def require_torchvision_weights(url: str, name: str) -> None:
    """Raises NoWeightsError if a file of torchvision is not in its cache and cannot be fetched."""
    if not _in_torch_hub(url):
        _require_connection(name, url)


def _hub() -> Any:
    """The library of the Hub, which timm needs; None where it is not installed."""
    try:
        import huggingface_hub.constants
    except ImportError:
        return None
    return huggingface_hub


def _in_torch_hub(url: str) -> str | None:
    file = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path))
    return str(file) if file.is_file() else None


def _require_connection(name: str, url: str) -> None:
    """Raises NoWeightsError if a URL's host, or the proxy on the way, does not answer in time."""
    host = urlparse(url).hostname or url
    way = urlparse(getproxies().get("https", url))
    found: list[OSError | None] = []

    def connect() -> None:
        try:
            socket.create_connection((way.hostname, way.port or 443), _SECONDS).close()
            found.append(None)
        except OSError as error:
            found.append(error)

    attempt = threading.Thread(target=connect, daemon=True)  # a name may take minutes to look up
    attempt.start()
    attempt.join(_SECONDS)
    error = found[0] if found else TimeoutError("no answer")
    if error is not None:
        _refuse(name, host, error.strerror or reason(error))


def _refuse(name: str, host: str, why: str) -> None:
    raise NoWeightsError(
        f"the published weights of {name} are in no cache, and {host} cannot be reached ({why}): "
        f"{HOW_TO_GO_ON}"
    )
