"""Sources, cleaning and splits: nothing that judges a model has been seen in training, whole or in part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.data.dataset import SPLITS
from edgewise.data.text.dataset import TextDataset, prepare
from edgewise.data.text.source import TextSource, load
from edgewise.errors import InvalidData, InvalidInput
from edgewise.testing.texts import sentences


def source(first: Sequence[str], labels: Any = None, given: Sequence[str] | None = None, second: Sequence[str] | None = None) -> TextSource:
    targets = None if labels is None else np.asarray(labels)
    names = tuple(map(str, range(int(targets.max()) + 1))) if targets is not None and targets.dtype.kind == "i" else ()
    return TextSource("made", first, second, targets, names, np.array(given if given is not None else [""] * len(first)))


def parts(dataset: TextDataset) -> dict[str, set[str]]:
    return {split: {dataset.first[i] for i in dataset.parts[split]} for split in SPLITS}


def treebank(n: int = 60) -> tuple[list[str], list[int]]:
    """Sentences, each with phrases of itself, as SST-2's training file has them; and phrases of two words that many sentences hold."""
    texts, labels = sentences(n, words=(10, 20))
    rows = [(text, label) for text, label in zip(texts, labels.tolist(), strict=True)]
    for text, label in list(rows):
        words = text.split()
        rows += [(" ".join(words[a:b]), label) for a, b in ((0, 5), (3, 9), (1, 3))]
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[i][0] for i in order], [rows[i][1] for i in order]


def test_no_phrase_of_a_held_out_sentence_stays_in_training() -> None:
    texts, labels = treebank()
    dataset = prepare(source(texts, labels), validation=0.2, test=0.2, calibration=20)
    found = parts(dataset)
    held = found["validation"] | found["test"]
    assert len(held) > 15 and all(len(text.split()) >= 10 for text in held)  # whole sentences, as what will come
    assert not any(f" {phrase} " in f" {sentence} " for phrase in found["train"] for sentence in held)
    assert any("was split off by whole texts" in finding for finding in dataset.findings)
    assert found["calibration"] <= found["train"] and all(len(text.split()) >= 10 for text in found["calibration"])
    # Phrases of sentences that stayed in train stay there too.
    assert sum(len(text.split()) < 10 for text in found["train"]) > 50


def test_texts_that_differ_in_spaces_alone_are_on_one_side() -> None:
    texts, labels = sentences(120, words=(5, 9))
    texts, tight = [f"it 's {text}" for text in texts], [f"it's {text}" for text in texts]
    found = parts(prepare(source([*texts, *tight], [*labels, *labels]), validation=0.3, test=0.2))
    where = [{text.replace("it's", "it 's") for text in found[split]} for split in ("train", "validation", "test")]
    assert not (where[0] & where[1] or where[0] & where[2] or where[1] & where[2])


def test_a_phrase_that_many_samples_repeat_leaves_train_too() -> None:
    texts, _ = treebank()
    phrase = "was made in this"
    long = [f"{text} {phrase}" for text in texts if len(text.split()) >= 10]
    dataset = prepare(source([*long, *([phrase] * 20)], [*([0, 1] * 30), *([1] * 20)]), validation=0.2, test=0.2)
    assert phrase not in parts(dataset)["train"]
    assert any("20 phrases that stand inside" in finding for finding in dataset.findings)


def test_splits_follow_from_content() -> None:
    texts, labels = treebank()
    one = prepare(source(texts, labels))
    again = prepare(source(texts[::-1], labels[::-1]))
    assert parts(one) == parts(again)
    assert one.fingerprint == prepare(source(texts, labels)).fingerprint
    others = [prepare(source(texts, labels), seed=1), prepare(source(texts, [1 - label for label in labels])), prepare(source(texts))]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 4
    spelled = [[*texts[:-1], changed] for changed in (texts[-1].upper(), texts[-1].title(), f" {texts[-1]}")]  # other tokens, maybe
    assert len({one.fingerprint, *(prepare(source(each, labels)).fingerprint for each in spelled)}) == 4
    lengths = [len(one.first[i]) for i in one.parts["train"]]
    assert lengths == sorted(lengths)


def test_pairs_that_share_a_text_stay_together() -> None:
    texts, _ = sentences(120, words=(5, 9))
    premises = [texts[i // 3] for i in range(240)]
    hypotheses = ["yes .", "no ."] * 120  # bind nobody
    shared = prepare(source(premises, [i % 2 for i in range(240)], second=hypotheses), validation=0.2, test=0.2)
    where = {split: {premises[i] for i in shared.parts[split]} for split in ("train", "validation", "test")}
    assert not (where["train"] & where["validation"] or where["train"] & where["test"] or where["validation"] & where["test"])
    # What all of them share would bind all of them: it is left in train, as far as it goes.
    alike = ["this one is said of many"] * 20 + hypotheses[20:]
    told = prepare(source(texts + texts, [i % 2 for i in range(240)], second=alike), validation=0.2, test=0.2)
    assert any("hang together" in finding for finding in told.findings)
    assert not {i for split in ("validation", "test") for i in told.parts[split]} & set(range(20))


def test_what_is_wrong_is_said_and_what_leaks_leaves() -> None:
    texts, labels = sentences(40)
    more = ["", "  ", texts[0].upper(), texts[1], texts[2], "unlabelled"]
    given = ["train"] * 30 + ["dev"] * 0 + ["validation"] * 5 + ["test"] * 5 + ["train", "test", "train", "test", "validation", "train"]
    dataset = prepare(source([*texts, *more], [*labels, 0, 1, 1 - labels[0], labels[1], labels[2], -1], given))
    found = parts(dataset)
    told = "\n".join(dataset.findings)
    assert "1 texts are empty and were left out (1 of train)" in told
    assert "1 samples have no label and were left out (1 of train)" in told
    assert "1 texts occur with more than one label" in told
    assert "2 texts equal one of a split that is kept for judging, and left theirs (2 of train)" in told
    assert texts[1] not in found["train"] and texts[1] in found["test"] and texts[2] in found["validation"]
    assert "  " in found["test"]  # a publisher's test split stays as it is
    assert texts[0] in found["train"] and texts[0].upper() in found["train"]
    assert [len(dataset.parts[split]) for split in ("train", "validation", "test")] == [29, 6, 7]


def test_a_copy_of_a_test_text_leaves_train_whatever_its_spaces() -> None:
    texts, labels = sentences(10)
    given = ["train"] * 8 + ["validation", "test", "train"]
    dataset = prepare(source([*texts[:9], "it 's no use .", "It's no use."], [*labels, 0], given))
    assert "It's no use." not in parts(dataset)["train"]
    assert any("1 texts equal one of a split that is kept for judging" in finding for finding in dataset.findings)


def test_phrases_of_a_given_test_split_are_counted() -> None:
    texts, labels = sentences(30, words=(8, 12))
    phrase = " ".join(texts[25].split()[:5])
    dataset = prepare(source([*texts, phrase], [*labels, 1], ["train"] * 20 + ["validation"] * 5 + ["test"] * 5 + ["train"]))
    assert phrase in parts(dataset)["train"]
    assert any(
        finding.startswith("1 texts of train stand whole in a text that is kept for judging, 1 of four") for finding in dataset.findings
    )


def test_unlabelled_texts_are_split_too() -> None:
    texts, _ = sentences(60)
    dataset = prepare(source(texts))
    assert dataset.targets is None and all(len(dataset.parts[split]) for split in SPLITS)


@pytest.mark.parametrize("wrong", [{"validation": 0.0}, {"test": 1.0}, {"validation": 0.6, "test": 0.5}, {"calibration": 0}])
def test_impossible_shares(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        prepare(source(*sentences(20)), **wrong)


def test_a_class_that_train_lacks() -> None:
    texts, _ = sentences(30)
    with pytest.raises(InvalidData, match="no training text of class 1"):
        prepare(source(texts, [0] * 20 + [1] * 10, ["train"] * 20 + ["validation"] * 5 + ["test"] * 5))


def glue(folder: Path) -> Path:
    texts, labels = sentences(90)
    files = {"train": ("sentence", 0, 60), "dev": ("content", 60, 75), "test": ("content", 75, 90)}
    for name, (column, first, last) in files.items():
        rows = [f"{labels[i]}\t{texts[i]}" for i in range(first, last)]
        (folder / f"{name}.tsv").write_text("\n".join([f"label\t{column}", *rows]) + "\n")
    return folder


def test_glues_files(tmp_path: Path) -> None:
    found = load(glue(tmp_path), "class")
    assert {split: int((found.given == split).sum()) for split in ("train", "validation", "test")} == {
        "train": 60, "validation": 15, "test": 15,
    }  # fmt: skip
    told = " ".join(found.findings)
    assert (
        "'content' as the text and 'label' as the label in dev, test; 'sentence' as the text" in told
        and "dev is the validation split" in told
    )


def test_dev_and_test_may_both_be_the_test(tmp_path: Path) -> None:
    found = load(glue(tmp_path), "class", as_test=("dev", "test"))
    assert int((found.given == "test").sum()) == 30 and "dev is the test split" in " ".join(found.findings)
    dataset = prepare(found, validation=0.2)
    assert len(dataset.parts["test"]) == 30 and 5 <= len(dataset.parts["validation"]) < 25
    assert (load(glue(tmp_path), "class", as_test=("validation",)).given == "test").sum() == 30
    with pytest.raises(InvalidData, match="as_test names 'holdout', and the data's splits are dev, test, train"):
        load(glue(tmp_path), "class", as_test=("holdout",))


def test_one_of_two_devs(tmp_path: Path) -> None:
    for name in ("train", "dev_matched", "dev_mismatched"):
        (tmp_path / f"{name}.tsv").write_text("sentence1\tsentence2\tgold_label\na\tb\tneutral\nc\td\tentailment\n")
    given = load(tmp_path, "class", as_test=("dev_mismatched",)).given.tolist()
    assert given == ["validation"] * 2 + ["test"] * 2 + ["train"] * 2


def test_two_files_are_what_they_are_given_as(tmp_path: Path) -> None:
    """Whatever a column of theirs says: the verdict is read from the second."""
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_text(f"text,label,split\na {name},0,{name}\nb {name},1,{name}\n")
    both = load({"train": tmp_path / "train.csv", "test": tmp_path / "dev.csv"}, "class")
    assert both.given.tolist() == ["train", "train", "test", "test"]
    assert load({"train": tmp_path / "dev.csv"}, "class").given.tolist() == ["validation"] * 2


def test_a_named_column_that_no_file_has_is_told(tmp_path: Path) -> None:
    folder = glue(tmp_path)
    assert load(folder, "class", text_columns=("content",), label_column="label").first  # train's is called otherwise
    with pytest.raises(InvalidData, match=r"text_columns=contents names what no file has; the columns are label, content, sentence"):
        load(folder, "class", text_columns=("contents",))
    with pytest.raises(InvalidData, match="label_column=labels names what no file has"):
        load(folder, "class", label_column="labels")


def test_scores_that_are_held_back(tmp_path: Path) -> None:
    """As `datasets` has STS-B's test: -1 throughout. One -1 among others is a score."""
    for name, scores in (("train", ("-1", "2")), ("dev", ("0", "3")), ("test", ("-1", "-1.0"))):
        (tmp_path / f"{name}.tsv").write_text("text\tscore\n" + "".join(f"{name} {i}\t{score}\n" for i, score in enumerate(scores)))
    found = load(tmp_path, "score", as_test=("dev", "test"))
    assert dict(zip(found.first, found.labelled().tolist(), strict=True)) == {
        "train 0": True, "train 1": True, "dev 0": True, "dev 1": True, "test 0": False, "test 1": False,
    }  # fmt: skip


def test_answers_that_are_no_spans_are_told(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(
        "question,context,answers\nwho ?,a good film,good\nhow ?,a good film,\"{'text': ['good']}\"\nwhy ?,a film,\n"
    )
    (told,) = (finding for finding in load(tmp_path / "d.csv", "answer").findings if "contexts" in finding)
    assert told.startswith("1 answers don't stand in their contexts, as \"{'text': ['good']}\"")


def test_a_column_of_splits(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text,label,split\na,0,train\nb,1,valid\nc,1,test\n")
    assert load(tmp_path / "d.csv", "class").given.tolist() == ["train", "validation", "test"]


def test_files_of_one_text_and_of_two(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("text\tlabel\na\t0\n")
    (tmp_path / "test.tsv").write_text("premise\thypothesis\tlabel\na\tb\t0\n")
    with pytest.raises(InvalidData, match="one text and others two"):
        load(tmp_path, "class")


def test_a_source_has_one_of_everything() -> None:
    with pytest.raises(InvalidData, match="2 texts and 1 targets"):
        TextSource("made", ["a", "b"], None, np.zeros(1), (), np.array(["", ""]))
    with pytest.raises(InvalidData, match="no texts"):
        source([])
