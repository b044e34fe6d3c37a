"""A Hugging Face folder as a model, and a model as such a folder: config.json, model.safetensors, tokenizer.json.

Weights come from safetensors alone, and no code that lies in the folder runs.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise import registry
from edgewise.errors import InvalidModel

if TYPE_CHECKING:
    from edgewise.models.encoder import Encoder, Head, Pooling

CONFIG, WEIGHTS, INDEX, MODULES = "config.json", "model.safetensors", "model.safetensors.index.json", "modules.json"
# What goes with a model so that its text comes out as the same ids.
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "sentencepiece.bpe.model", "spiece.model",
)  # fmt: skip
# What sentence-transformers reads besides.
SENTENCES = (MODULES, "sentence_bert_config.json", "config_sentence_transformers.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

_CLASSES: dict[Head, str] = {
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "embedding": "AutoModel",
}
_TASKS: dict[str, Head] = {
    "text-classification": "classification",
    "text-regression": "regression",
    "question-answering": "question-answering",
    "sentence-embedding": "embedding",
}
_POOLING: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


@dataclass(frozen=True)
class Layout:
    """What a folder says of itself. head: what its weights answer; None for an encoder that answers nothing yet."""

    folder: Path
    weights: Path  # the folder of config.json and the weights: another one in some layouts of sentence-transformers
    config: Mapping[str, Any]
    head: Head | None
    labels: tuple[str, ...] = ()  # of the classes, in the model's order; () where they are only numbered
    pooling: Pooling = "mean"
    normalise: bool = False

    @property
    def architecture(self) -> str:
        return next(iter(self.config.get("architectures") or ()), self.config.get("model_type", "an unknown model"))


def head_for(task: Any) -> Head | None:
    """What a model has to answer for `task`: what it says itself, or what its name says; None for a task of another kind."""
    found: Head | None = getattr(task, "head", None)
    return found or _TASKS.get(getattr(task, "name", ""))


def layout(folder: Path) -> Layout:
    """Read config.json, and what sentence-transformers writes beside it. Needs neither torch nor transformers. Raises InvalidModel."""
    if not folder.is_dir():
        raise InvalidModel(f"{folder} {'is a file' if folder.exists() else 'does not exist'}; give a folder with {CONFIG} and {WEIGHTS}")
    modules = _json(folder / MODULES) if (folder / MODULES).exists() else None
    weights, pooling, normalise = folder, folder / "1_Pooling", False
    for module in modules or ():
        kind, path = str(module.get("type", "")).rpartition(".")[2], folder / str(module.get("path", ""))
        if kind == "Transformer":
            weights = path
        elif kind == "Pooling":
            pooling = path
        elif kind == "Normalize":
            normalise = True
        else:
            raise InvalidModel(f"{folder / MODULES} has a module {kind!r}, which isn't supported; Transformer, Pooling and Normalize are")
    if not (weights / CONFIG).is_file():
        raise InvalidModel(f"{weights} has no {CONFIG}; give a folder that transformers' save_pretrained wrote")
    config = _json(weights / CONFIG)
    if not isinstance(config, dict) or "model_type" not in config:
        raise InvalidModel(f"{weights / CONFIG} names no model_type; give a folder that transformers' save_pretrained wrote")
    if (pooling / CONFIG).is_file():
        return Layout(folder, weights, config, "embedding", pooling=_pooling(pooling / CONFIG), normalise=normalise)
    named = config.get("id2label") or {}
    labels = tuple(str(named[key]) for key in sorted(named, key=int))
    numbered = all(label == f"LABEL_{number}" for number, label in enumerate(labels))
    return Layout(folder, weights, config, _head(config, len(labels)), () if numbered else labels)


def _head(config: Mapping[str, Any], labels: int) -> Head | None:
    named = str(next(iter(config.get("architectures") or ()), ""))
    if named.endswith("ForQuestionAnswering"):
        return "question-answering"
    if not named.endswith("ForSequenceClassification"):
        return None
    count = config.get("num_labels", labels or 2)
    if config.get("problem_type") == "multi_label_classification":
        raise InvalidModel(f"{named} gives several labels at once (problem_type in {CONFIG}), which isn't supported; one of several is")
    return "regression" if config.get("problem_type") == "regression" or count == 1 else "classification"


def _pooling(path: Path) -> Pooling:
    config = _json(path)
    on = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
    if "pooling_mode" in config:  # newer releases write one word
        on = [f"pooling_mode_{config['pooling_mode']}{'_token' if config['pooling_mode'] == 'cls' else '_tokens'}"]
    if len(on) != 1 or on[0] not in _POOLING:
        raise InvalidModel(f"{path} pools by {', '.join(on) or 'nothing'}; one of {', '.join(_POOLING)} is supported")
    return _POOLING[on[0]]


def load_folder(folder: Path, *, head: Head | None = None, labels: Sequence[str] | None = None, seed: int = 0) -> Encoder:
    """The model in `folder`, in evaluation mode, in float32.

    head: what it is asked for; left out, what its weights answer. An embedding can be had of any encoder, by the mean of its last states.
    labels: the classes that are going to be trained; a head that the weights lack is then made, its weights drawn by `seed`.
    Raises InvalidModel for weights that are pickled, missing or don't fit, and where a head is asked for that would have to be made;
    MissingExtra without transformers.
    """
    found = layout(folder)
    wanted = head or found.head
    if wanted is None:
        raise InvalidModel(
            f"{folder} holds an encoder that answers nothing yet ({found.architecture}): train it with `edgewise train`, "
            "or give a folder with a head for a task"
        )
    trained = wanted in (found.head, "embedding")
    if not trained and labels is None:
        answers = f"answers for {found.head}" if found.head else "answers nothing yet"
        raise InvalidModel(f"{folder} ({found.architecture}) {answers}, not for {wanted}: train it with `edgewise train` first")
    _refuse_pickles(found.weights)
    try:
        import torch
        import transformers
    except ImportError as error:
        raise registry.missing(error) from error
    from edgewise.models.encoder import Encoder

    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager", "local_files_only": True, "trust_remote_code": False}
    with _explained(found), _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = transformers.AutoConfig.from_pretrained(found.weights, local_files_only=True, trust_remote_code=False)
        if labels is not None and wanted in ("classification", "regression"):
            trained = trained and len(labels) == config.num_labels
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: number for number, label in enumerate(labels)}
            config.problem_type = "regression" if wanted == "regression" else "single_label_classification"
        model, report = getattr(transformers, _CLASSES[wanted]).from_pretrained(
            found.weights, config=config, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=not trained, **options
        )
    _refuse_missing(found, model, report, trained)
    encoder = Encoder(model, wanted, pooling=found.pooling, normalise=found.normalise and wanted == "embedding")
    return encoder.eval()


def _refuse_pickles(folder: Path) -> None:
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        return
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if not pickled:
        raise InvalidModel(f"{folder} has no weights; expected {WEIGHTS} beside {CONFIG}")
    raise InvalidModel(
        f"{folder} has its weights in {pickled[0]}, a pickle, which can run code and isn't read. Convert it once: python -c "
        f"\"import torch, safetensors.torch as s; s.save_file({{k: v.contiguous().clone() for k, v in torch.load('{pickled[0]}', "
        f"weights_only=True).items()}}, '{WEIGHTS}', {{'format': 'pt'}})\""
    )


def _refuse_missing(found: Layout, model: Any, report: Mapping[str, Any], trained: bool) -> None:
    """Raise InvalidModel unless all weights came from the file; but for a head that is to be trained, and a pooler that nothing reads."""
    inside = f"{model.base_model_prefix}."
    has_base = hasattr(model, model.base_model_prefix)
    missing = [
        name
        for name in (*report["missing_keys"], *(key[0] for key in report["mismatched_keys"]))
        if (trained or not has_base or name.startswith(inside)) and not _unread(name, model, trained)
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InvalidModel(
            f"{found.folder} has no weights for {', '.join(missing[:3])}{more} of {type(model).__name__}; "
            "the file is of another model: save it again with save_pretrained"
        )


def _unread(name: str, model: Any, trained: bool) -> bool:
    """A pooler is read by a head for classes alone, and is trained with it."""
    return "pooler." in name and (not trained or "ForSequenceClassification" not in type(model).__name__)


def save_folder(encoder: Encoder, folder: Path, source: Path) -> None:
    """Write `encoder` to `folder`, as transformers and `load_folder` read it, with the tokenizer of `source`."""
    before = layout(source)
    pooled = encoder.head == "embedding" and before.head == "embedding"
    target = folder / before.weights.relative_to(before.folder) if pooled else folder
    target.mkdir(parents=True, exist_ok=True)
    with _quiet():
        saved: Any = encoder.model
        saved.save_pretrained(target)
    for place in (before.weights, before.folder):
        for name in TOKENIZER:
            if (place / name).is_file():
                shutil.copyfile(place / name, target / name)
    for path in before.folder.iterdir() if pooled else ():
        if path.name in SENTENCES:
            shutil.copyfile(path, folder / path.name)
        elif path != before.weights and (path / CONFIG).is_file():
            (folder / path.name).mkdir(exist_ok=True)
            shutil.copyfile(path / CONFIG, folder / path.name / CONFIG)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidModel(f"{path} can't be read as JSON ({error}); it may be truncated: copy it again") from error


@contextlib.contextmanager
def _explained(found: Layout) -> Iterator[None]:
    """Whatever transformers raises (it is many kinds), as an InvalidModel with the line that matters."""
    try:
        yield
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InvalidModel(f"{found.folder} ({found.architecture}) can't be read by transformers: {reason[:300]}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers tells of what it loads, with a bar, on standard error."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
