"""Models that are named by their place on the Hugging Face hub, "org/name". Nothing else here asks a network."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgewise import registry
from edgewise.errors import InvalidModel
from edgewise.models.huggingface import CONFIG, INDEX, SENTENCES, TOKENIZER

_FILES = (".onnx", ".pt2", ".edgew")  # of models
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_name(text: str) -> bool:
    """Whether `text` reads as "org/name", and as no path: no file of a model by its name, nothing of that name is here, nor a folder that
    it would lie in.
    """
    path = Path(text)
    return bool(_NAME.fullmatch(text)) and path.suffix.lower() not in _FILES and not path.exists() and not path.parent.exists()


def download(name: str) -> Path:
    """The folder of the model `name`: configuration, safetensors, tokenizer. One that was downloaded before is not fetched again.

    Raises InvalidModel where it can't be had: no network, no such model, no leave to read it. MissingExtra without huggingface_hub.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
    except ImportError as error:
        raise registry.missing(error) from error
    wanted = [CONFIG, f"*/{CONFIG}", "model*.safetensors", INDEX, *TOKENIZER, *SENTENCES]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # of its own, of the network's libraries, of the system
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InvalidModel(
            f"{name!r} is no folder here, and can't be had from the Hugging Face hub: {reason[:200]}; "
            "check the name and the network, or download it elsewhere and give its folder"
        ) from error
