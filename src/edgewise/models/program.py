"""Programs that torch.export.save wrote (.pt2)."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

from edgewise import registry
from edgewise.errors import InvalidModel

try:
    import torch
    from torch.export import ExportedProgram
except ImportError as error:
    raise registry.missing(error) from error


def load_program(path: str | os.PathLike[str]) -> ExportedProgram:
    """The program in the .pt2 file at `path`.

    A file with pickled members is refused: torch would unpickle them, which runs whatever they say.
    Raises InvalidModel when it is missing, no .pt2, of another torch's format, or holds NaN weights.
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidModel(f"{file} {'is a folder' if file.is_dir() else 'does not exist'}; give the path of a .pt2 file")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidModel(f"can't read {file}: {error.strerror}; check its permissions") from error
    refuse_pickles(data, file)
    try:
        program = torch.export.load(io.BytesIO(data))
    except Exception as error:  # torch's deserializer raises nearly anything on a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidModel(f"{file} can't be read by torch {torch.__version__}: {reason}; save it again with torch.export.save") from error
    for name, tensor in program.state_dict.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise InvalidModel(
                f"{file}: weight {name!r} {list(tensor.shape)} has NaN values; training diverged: take an earlier checkpoint"
            )
    return program


def refuse_pickles(data: bytes, file: Path) -> None:
    """Raise InvalidModel unless every member is plain data: JSON, raw weights, or tensors that torch reads with weights_only."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        names = archive.namelist()
        if not any(name.endswith("archive_format") for name in names):
            raise InvalidModel(f"{file} is not a .pt2 program; write one with torch.export.save(torch.export.export(model, example), path)")
        for name in names:
            if name.endswith(("weights_config.json", "constants_config.json")):
                _refuse_pickled_payloads(json.loads(archive.read(name)), file)
            elif name.endswith(".pt"):
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidModel(f"{file} is not a .pt2 program, or it is damaged ({error}); write it with torch.export.save") from error
    except InvalidModel:
        raise
    except Exception as error:  # what weights_only refuses comes as pickle.UnpicklingError, RuntimeError and others
        raise InvalidModel(f"{file} holds pickled objects, which can run code; export the model again without example objects") from error


def _refuse_pickled_payloads(config: dict[str, dict[str, dict[str, object]]], file: Path) -> None:
    for name, payload in config.get("config", {}).items():
        if payload.get("use_pickle") or str(payload.get("path_name", "")).startswith(("custom_obj", "opaque_obj")):
            raise InvalidModel(f"{file} keeps {name!r} as a pickle, which can run code; export a model of plain tensors")
