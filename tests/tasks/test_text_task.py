"""Tasks on texts: one preprocessing everywhere, windows joined as on a device, a sealed test split, batches that a seed fixes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise import backends, measure
from edgewise.data import metrics
from edgewise.data.text import TextEncoder
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.graph import Graph
from edgewise.search.verdict import self_labelled
from edgewise.tasks import TextTask, bound, question_answering, sentence_embedding, text_classification, text_regression
from edgewise.testing import texts as made
from edgewise.types import Execution, Signature, TensorSpec

ORT = Execution("onnxruntime")


def signature(
    *names: str, shape: tuple[int | str, ...] = ("batch", "tokens"), dtype: str = "int64", gives: Any = ("batch", 2)
) -> Signature:
    taken = tuple(TensorSpec(name, shape, dtype) for name in names or ("input_ids", "attention_mask"))
    return Signature(taken, (TensorSpec("logits", gives, "float32"),))


def classification(reviews: Path, **options: Any) -> TextTask:
    return text_classification(reviews, tokenizer=reviews, **options)


def evenly(whole: int, n: int) -> np.ndarray:
    return np.linspace(0, whole - 1, n).round().astype(int)


def test_splits_feed_what_the_tokenizer_gives(reviews: Path) -> None:
    task = classification(reviews)
    split = task.split("validation")
    library = made_library()
    assert len(split) == 30 and split.targets is not None and task.labels == ("0", "1")
    seen = 0
    for inputs, targets in split.batches(7):
        assert {array.dtype for array in inputs.values()} == {np.dtype(np.int64)}
        for ids, mask, target in zip(inputs["input_ids"], inputs["attention_mask"], targets, strict=True):  # type: ignore[arg-type]
            text = task.texts.dataset.first[split.indices[seen]]
            assert ids[mask == 1].tolist() == library.encode(text).ids and not ids[mask == 0].any()
            assert target == split.targets[seen] == task.texts.dataset.targets[split.indices[seen]]  # type: ignore[index]
            seen += 1
        assert inputs["attention_mask"].any(axis=0).all()  # filled up to the longest, and no further
    assert seen == 30
    with pytest.raises(InvalidInput, match="train, calibration"):
        task.split("holdout")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="batch size"):
        next(split.batches(0))


def made_library() -> Any:
    from edgewise.data.text.encoder import opened

    return opened(made.tokenizer())


def test_nothing_but_the_unsealed_split_encodes_a_test_text(reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    rows = TextEncoder.rows
    monkeypatch.setattr(
        TextEncoder, "rows", lambda self, texts: (seen.update(" ".join(texts).split(" . ")), seen.update(texts), rows(self, texts))[2]
    )
    task = classification(reviews, as_test=("test",)).for_model(signature())
    for name in ("train", "calibration", "validation"):
        assert list(task.split(name).batches(16))  # type: ignore[arg-type]
    for _ in task.training_batches(batch_size=16, epoch=0):
        pass
    task.example_inputs(3)
    task.calibration(5)
    task.summary()
    test = {task.texts.dataset.first[i] for i in task.texts.dataset.parts["test"]}
    assert len(test) == 30 and not test & seen
    with pytest.raises(InvalidInput, match="sealed"):
        task.split("test")
    assert len(list(task.unsealed().split("test").batches(10))) == 3 and test <= seen


def test_a_long_text_has_the_mean_of_its_windows_logits(reviews: Path) -> None:
    graph = Graph.from_proto(made.model())
    task = bound(classification(reviews, max_length=8, stride=2), graph.signature)
    split = task.split("validation")
    assert len(split.rows) > len(split)
    found = measure.answers(graph, ORT, split)
    table = made.embedding(8)
    for place, index in enumerate(split.indices):
        ids = made_library().encode(task.texts.dataset.first[index], add_special_tokens=False).ids
        cuts = [ids[at : at + 6] for at in range(0, max(len(ids) - 6, 0) + 4, 4)] if len(ids) > 6 else [ids]
        logits = [table[[2, *cut, 3]].mean(axis=0)[-2:] for cut in cuts]
        np.testing.assert_allclose(found[place], np.mean(logits, axis=0), atol=1e-5)
    assert task.training_rows == len(task.split("train").rows) > len(task.split("train"))
    # Each window has its text's label, and a part of the split is the same part of it.
    labels = np.concatenate([targets for _, targets in split.batches(5)])
    np.testing.assert_array_equal(labels, split.targets[split.rows.sample])
    np.testing.assert_allclose(measure.answers(graph, ORT, split.every(7)), found[evenly(len(found), 7)], atol=1e-6)
    assert metrics.quality(task.metric, "validation", found, split.targets, task.labels).value.value > 0.9


def test_rows_one_by_one_answer_as_in_a_batch(reviews: Path) -> None:
    graph = Graph.from_proto(made.model())
    split = bound(classification(reviews), graph.signature).split("validation")
    runner = backends.load(graph.to_bytes(), ORT)
    np.testing.assert_allclose(measure.collect(runner, split, 1), measure.collect(runner, split, 64), atol=1e-6)
    runner.close()


def test_training_batches_follow_seed_and_epoch(reviews: Path) -> None:
    task = classification(reviews)

    def epoch(number: int, seed: int = 0) -> tuple[list[str], list[int]]:
        batches = list(task.training_batches(batch_size=16, epoch=number, seed=seed))
        assert len(batches) == 6 and all(len(targets) == 16 for _, targets in batches)  # type: ignore[arg-type]
        ids = [row[row > 0].tobytes().hex() for inputs, _ in batches for row in inputs["input_ids"]]
        return ids, [int(target) for _, targets in batches for target in targets]  # type: ignore[union-attr]

    first, again, second, other = epoch(0), epoch(0), epoch(1), epoch(0, seed=1)
    assert first == again and first[0] != second[0] and first[0] != other[0]
    assert len(set(first[0])) == 96 and set(first[0]) != set(second[0])  # each once; another epoch leaves others out
    # Rows of like length share a batch.
    spread = [np.ptp(inputs["attention_mask"].sum(axis=1)) for inputs, _ in task.training_batches(batch_size=16, epoch=0)]
    assert np.mean(spread) <= 3
    (whole,) = task.training_batches(batch_size=1000, epoch=0)
    assert len(whole[1]) == 100  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="batch_size"):
        next(iter(task.training_batches(batch_size=0, epoch=0)))


@pytest.mark.parametrize("tokens", [8, 32, 100])
def test_examples_have_exactly_as_many_tokens_as_asked(reviews: Path, tokens: int) -> None:
    task = classification(reviews, tokens=(24, 48))
    fed = task.example_inputs(5, tokens)
    assert fed["input_ids"].shape == (5, tokens) and fed["attention_mask"].all()
    assert (fed["input_ids"][:, 0] == 2).all() and (fed["input_ids"][:, -1] == 3).all()
    assert (fed["input_ids"][:, 1:-1] > 4).all()  # real words of the texts that calibrate
    np.testing.assert_array_equal(fed["input_ids"], task.example_inputs(5, tokens)["input_ids"])
    assert task.example_inputs()["input_ids"].shape == (1, 24)
    assert [fed["input_ids"].shape for fed in task.timed_inputs()] == [(1, 24), (1, 48)]
    with pytest.raises(InvalidInput, match="at most 512"):
        task.example_inputs(1, 513)


def test_examples_of_pairs(tmp_path: Path) -> None:
    texts, _ = made.sentences(80, words=(5, 9))
    rows = [f"{a}\t{b}\t{i % 2}" for i, (a, b) in enumerate(zip(texts[:40], texts[40:], strict=True))]
    (tmp_path / "d.tsv").write_text("\n".join(["premise\thypothesis\tlabel", *rows]))
    task = text_classification(tmp_path / "d.tsv", tokenizer=made.tokenizer(), validation=0.2, test=0.2)
    task = task.for_model(signature("input_ids", "attention_mask", "token_type_ids"))
    fed = task.example_inputs(2, 40)
    assert fed["input_ids"].shape == (2, 40) and (fed["input_ids"] == 3).sum(axis=1).tolist() == [2, 2]
    assert set(fed["token_type_ids"].ravel().tolist()) == {0, 1}


def test_a_task_takes_on_what_the_model_fixes(reviews: Path) -> None:
    task = classification(reviews)
    named = task.for_model(signature("ids.1", "segment_ids", "mask", dtype="int32"))
    assert (named.preprocess.ids, named.preprocess.types, named.preprocess.mask) == ("ids.1", "segment_ids", "mask")
    assert named.example_inputs(2)["segment_ids"].dtype == np.int32
    assert named.fingerprint() != classification(reviews, tokens=(64,)).fingerprint()
    assert task.for_model(signature("x", "mask_")).fingerprint() == task.fingerprint()  # names follow from the model
    fixed = task.for_model(signature(shape=(1, 16)))
    assert (fixed.preprocess.max_length, fixed.preprocess.pad_to, fixed.preprocess.stride) == (16, 16, 8)
    assert fixed.example_inputs(1)["input_ids"].shape == (1, 16)
    assert {inputs["input_ids"].shape for inputs, _ in fixed.split("validation").batches(1)} == {(1, 16)}
    assert [fed["input_ids"].shape for fed in fixed.timed_inputs()] == [(1, 16)]
    with pytest.raises(InvalidInput, match="rows of 16"):
        fixed.example_inputs(1, 32)
    for wrong, says in (
        (signature("image", shape=("batch", 3, 8, 8)), "takes image"),
        (signature(dtype="float32"), "int64 or int32"),
        (signature("a", "b"), "a text is fed as"),
        (signature("mask_a", "mask_b", "ids"), "a text is fed as"),
        (signature(gives=("batch", 3)), "3 classes"),
        (signature(gives=("batch", "tokens", 2)), r"expects \(batch, classes\)"),
    ):
        with pytest.raises(InvalidModel, match=says):
            task.for_model(wrong)


def test_without_labels_a_reference_model_stands_for_them(reviews: Path) -> None:
    for path in reviews.glob("*.tsv"):
        path.write_text("\n".join(line.partition("\t")[0] for line in path.read_text().splitlines()))
    task = classification(reviews)
    assert task.labels == () and task.split("train").targets is None and task.postprocess is None
    assert next(iter(task.training_batches(batch_size=4, epoch=0)))[1] is None
    graph = Graph.from_proto(made.model())
    labelled = self_labelled(bound(task, graph.signature), graph, ["onnxruntime"], 1, ("validation",))
    assert labelled.metric == "agreement" and labelled.labels == ("0", "1") and labelled.fingerprint() == task.fingerprint()
    outputs = measure.answers(graph, ORT, labelled.split("validation"))
    assert metrics.quality("agreement", "validation", outputs, labelled.split("validation").targets, ()).value.value == 1.0
    with pytest.raises(InvalidData, match="outputs for split 'test'"):
        labelled.with_answers({"test": outputs[:3]})


def test_paths_and_tokenizers_that_are_missing(reviews: Path) -> None:
    with pytest.raises(InvalidInput, match="tokenizer is missing"):
        text_classification(reviews)
    with pytest.raises(InvalidInput, match="give one path, or train"):
        text_classification(tokenizer=reviews)
    with pytest.raises(InvalidInput, match="give one path, or train"):
        text_classification(reviews, tokenizer=reviews, train=reviews / "train.tsv")
    with pytest.raises(InvalidInput, match="give one path, or train"):
        text_classification(tokenizer=reviews, eval=reviews / "dev.tsv")
    both = text_classification(tokenizer=reviews, train=reviews / "train.tsv", eval=reviews / "dev.tsv")
    counts = both.summary().samples
    assert counts["test"] == 30 and counts["train"] + counts["validation"] == 100 and counts["validation"] > 0


def test_regression(tmp_path: Path) -> None:
    texts, labels = made.sentences(100)
    path = tmp_path / "d.csv"
    path.write_text("\n".join(["text,score", *(f"{text},{5 * label}" for text, label in zip(texts, labels, strict=True))]))
    graph = Graph.from_proto(made.model("number"))
    task = bound(text_regression(path, tokenizer=made.tokenizer(), validation=0.3, test=0.2), graph.signature)
    split = task.split("validation")
    outputs = measure.answers(graph, ORT, split)
    found = metrics.quality(task.metric, "validation", outputs, split.targets, task.labels)
    assert found.metric == "spearman" and found.value.value > 0.7 and "mse" in found.also
    assert task.postprocess.apply(outputs[:2]) == pytest.approx(outputs[:2, 0].tolist())
    with pytest.raises(InvalidModel, match=r"expects \(batch, 1\)"):
        task.for_model(signature())
    torch = pytest.importorskip("torch")
    _, targets = next(iter(task.training_batches(batch_size=8, epoch=0)))
    assert targets is not None and targets.dtype == np.float32
    given = torch.zeros(8, 1)
    assert float(task.loss(given, torch.from_numpy(targets))) == pytest.approx(float((targets**2).mean()))


def test_question_answering(questions: Path) -> None:
    graph = Graph.from_proto(made.model("span", types=True))
    task = question_answering(questions, tokenizer=made.tokenizer(), max_length=32, stride=6, validation=0.3, test=0.2, tokens=(24,))
    task = bound(task, graph.signature)
    split = task.split("validation")
    assert len(split.rows) > len(split) and split.targets is not None
    outputs = measure.answers(graph, ORT, split)
    assert outputs.ndim == 3 and len(outputs) == len(split)
    # The model's two numbers of a token are large for a bad and for a good word; their places as start and end make it a tagger by hand.
    both = np.repeat(outputs.max(axis=2, keepdims=True), 2, axis=2)
    found = metrics.quality("exact", "validation", both, split.targets, ())
    assert found.value.value == 1.0 and metrics.quality("answer-f1", "validation", both, split.targets, ()).value.value == 1.0
    # Rows' targets are the tokens of the answer, in every window that holds it whole, and the first token in the others.
    library, rows, hit = made_library(), split.rows, 0
    for row, (first, last) in enumerate(split.row_targets):
        word = library.id_to_token(int(rows.ids[rows.starts[row] + first]))
        context = task.texts.dataset.second[split.indices[rows.sample[row]]]  # type: ignore[index]
        hit += first > 0
        assert (first == last and split.targets[rows.sample[row]].answers == (word,)) if first else (last == 0 and word == "[CLS]"), context
    assert hit >= len(split)
    contexts = [task.texts.dataset.second[i] for i in split.indices]  # type: ignore[index]
    answers = task.postprocess.apply(both, rows, contexts)
    assert [answer.text for answer in answers] == [question.answers[0] for question in split.targets]
    with pytest.raises(InvalidModel, match="start and end logits side by side"):
        task.for_model(signature())
    torch = pytest.importorskip("torch")
    targets = torch.from_numpy(split.row_targets[:4])
    perfect = torch.full((4, 32, 2), -50.0)
    for i, (first, last) in enumerate(split.row_targets[:4]):
        perfect[i, first, 0] = perfect[i, last, 1] = 50.0
    assert float(task.loss(perfect, targets)) == pytest.approx(0.0, abs=1e-6)
    assert float(task.loss(torch.zeros(4, 32, 2), targets)) == pytest.approx(np.log(32))


def test_questions_without_answers(questions: Path) -> None:
    told = questions.read_text().replace('"answers": [{', '"answers": [], "plausible": [{', 5)
    questions.write_text(told)
    task = question_answering(questions, tokenizer=made.tokenizer(), validation=0.3, test=0.2)
    assert task.postprocess.nothing and not question_answering(questions, tokenizer=made.tokenizer(), nothing=False).postprocess.nothing
    assert task.fingerprint() != dataclasses.replace(task, goal=dataclasses.replace(task.goal, nothing=False)).fingerprint()  # type: ignore[type-var]


def test_embeddings_near_to_the_model_as_it_came(reviews: Path) -> None:
    graph, other = Graph.from_proto(made.model("vector")), Graph.from_proto(made.model("vector", seed=1))
    task = sentence_embedding(reviews, tokenizer=reviews)
    assert task.metric == "cosine" and task.split("validation").targets is None and task.labels == ()
    labelled = self_labelled(bound(task, graph.signature), graph, ["onnxruntime"], 1, ("validation",))
    split = labelled.split("validation")
    assert split.targets is not None and split.targets.shape == (30, 8) and labelled.metric == "cosine"
    one, two = (metrics.quality("cosine", "validation", measure.answers(each, ORT, split), split.targets, ()) for each in (graph, other))
    assert one.value.value == pytest.approx(1.0) and two.value.value < 0.999
    drop = metrics.paired(one, two).difference
    assert drop.high < 0 and drop.value == pytest.approx(two.value.value - one.value.value)
    vectors = labelled.postprocess.apply(np.ones((2, 4)))
    np.testing.assert_allclose(vectors, 0.5)
    torch = pytest.importorskip("torch")
    assert float(task.loss(torch.eye(3), 2 * torch.eye(3))) == pytest.approx(0.0, abs=1e-6)


def test_embeddings_of_pairs_are_judged_by_retrieval(tmp_path: Path) -> None:
    texts, _ = made.sentences(80, words=(6, 10))
    rows = [f"{text}\t{' '.join(reversed(text.split()))}" for text in texts]
    (tmp_path / "d.tsv").write_text("\n".join(["anchor\tpositive", *rows]))
    graph = Graph.from_proto(made.model("vector", width=24))
    task = bound(sentence_embedding(tmp_path / "d.tsv", tokenizer=made.tokenizer(), validation=0.3, test=0.2), graph.signature)
    split = task.split("validation")
    assert task.metric == "recall@1" and not task.preprocess.pair and split.targets is not None
    outputs = measure.answers(graph, ORT, split)
    assert outputs.shape == (len(split), 2, 24)
    assert metrics.quality("recall@1", "validation", outputs, split.targets, ()).value.value == 1.0  # a mean knows no order of words
    assert task.split("train").targets is None  # a teacher is all that is learned from
    assert measure.answers(graph, ORT, split.every(3)).shape == (3, 2, 24)
    with pytest.raises(InvalidInput, match="recall@1 is of pairs"):
        sentence_embedding(tmp_path / "d.tsv", tokenizer=made.tokenizer(), metric="cosine")


def test_a_task_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import edgewise.tasks; assert 'tokenizers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_some_that_calibrate_are_of_all_lengths(reviews: Path) -> None:
    task = classification(reviews, calibration=20).for_model(signature())
    whole, some = ([batch["input_ids"][0].tolist() for batch in task.calibration(n, batch_size=1)] for n in (None, 5))
    assert len(whole) == 20 and some == [whole[at] for at in (0, 5, 10, 14, 19)]
    assert len(task.calibration(99, batch_size=1)) == 20


def test_long_texts_are_drawn_more_often(reviews: Path) -> None:
    task = classification(reviews)
    lengths = task.split("train").rows.lengths

    def drawn(task: TextTask) -> np.ndarray:
        batches = [batch for epoch in range(40) for batch, _ in task.training_batches(batch_size=len(lengths), epoch=epoch)]
        return np.concatenate([batch["attention_mask"].sum(axis=1) for batch in batches])

    evenly_drawn, by_length = drawn(task), drawn(task.by_length())
    assert len(evenly_drawn) == len(by_length) == 40 * len(lengths)
    assert np.mean(evenly_drawn) == pytest.approx(np.mean(lengths))
    # A text's share of the draws is its share of the tokens: the mean length comes to E[L²] / E[L].
    expected = np.mean(lengths**2) / np.mean(lengths)
    assert np.mean(by_length) == pytest.approx(expected, rel=0.02) and expected > 1.05 * np.mean(lengths)
    first = [batch["input_ids"].tobytes() for batch, _ in task.by_length().training_batches(batch_size=16, epoch=3, seed=1)]
    assert first == [batch["input_ids"].tobytes() for batch, _ in task.by_length().training_batches(batch_size=16, epoch=3, seed=1)]
