"""Where pictures come from: one `Source`, whatever the layout on disk.

data/cat/*.png   data/dog/*.jpg              a folder per class
data/train/cat/*.png   data/test/cat/*.png   the same under train/, val/ (valid/, validation/) and test/
data/*.jpg                                   no labels
data/train-images-idx3-ubyte.gz …            IDX: MNIST and its kin, four files, .gz or plain
data.npz, or data/ with one .npz             images + labels, or x_train, y_train, x_test, y_test and the like
"my_module:digits"                           your own function (see `arrays.own`)
"""

from __future__ import annotations

from pathlib import Path

from edgewise.data import arrays, folders
from edgewise.data.source import Source
from edgewise.errors import InvalidData


def find(where: str | Path | Source, labels: tuple[str, ...] = ()) -> Source:
    """The data at `where`: a path, "module:function", or a Source as it is.

    labels: names of the classes, in the model's order; left out, folders' names sorted (as torchvision does) or "0", "1", ….
    Raises InvalidData when nothing we know is there, and when labels and data don't match.
    """
    if isinstance(where, Source):
        return where
    path = Path(where)
    if path.is_file():
        if path.suffix != ".npz":
            raise InvalidData(f"{path}: give a folder of pictures or IDX files, or an .npz file")
        return arrays.npz(path, labels)
    if path.is_dir():
        archives = sorted(path.glob("*.npz"))
        if arrays.idx_files(path):
            return arrays.idx(path, labels)
        if len(archives) == 1:
            return arrays.npz(archives[0], labels)
        if archives:
            raise InvalidData(f"{path} holds {len(archives)} .npz files ({archives[0].name}, …); name the one that you mean")
        return folders.folder(path, labels)
    if ":" in str(where):
        return arrays.own(str(where), labels)
    raise InvalidData(f"{path}: there is no such file or folder; give a folder per class, IDX files, .npz, or 'module:function'")
