"""Images in files of arrays and in columns of numbers: refused in one line with what to do, and never loaded."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from visionadapt.errors import SourceError, VisionAdaptError
from visionadapt.sources import TableSource
from visionadapt.sources.opening import open_source


class Trap:
    """What writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("open('executed', 'w').close()",)


def written(folder: Path, name: str) -> Path:
    """Write a file as programs write it, under a name that may not tell what it is."""
    path = folder / name
    match path.suffix:
        case ".npz":
            np.savez(path, images=np.zeros((2, 8, 8), np.uint8), labels=np.arange(2))
        case ".npy":
            np.save(path, np.zeros((2, 8, 8), np.uint8))
        case ".h5" | ".hdf5":
            path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
        case ".mat":
            path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(500))
        case ".pt":
            path.write_bytes(b"PK\x03\x04" + bytes(500))
        case _:
            path.write_bytes(b"\0\0\x08\x03" + bytes(500) if "ubyte" in name else pickle.dumps(Trap()))
    return path


NAMES = ["x.npz", "x.npy", "x.h5", "x.hdf5", "x.mat", "x.pkl", "data_batch_1", "x.pt", "train-images-idx3-ubyte"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_arrays_is_refused_with_what_to_do(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set").mkdir()
    path = written(tmp_path / "set", name)
    monkeypatch.chdir(tmp_path)
    for text in (str(path), str(path.parent), f"csv({path}, image=a)"):
        with pytest.raises(SourceError) as caught:
            _ = open_source(text).classes
        message = str(caught.value)
        assert str(path) in message and "own-source" in message and "\n" not in message, message
        assert "Excel" not in message and caught.value.exit_code == 2
    assert not (tmp_path / "executed").exists()


def pixels(header: str | None, separator: str = ",", count: int = 784) -> str:
    rows = [f"{row % 10},{separator.join(str((row * pixel) % 256) for pixel in range(count))}" for row in range(20)]
    return "\n".join([*([] if header is None else [header]), *rows])


TABLES = {
    "MNIST": pixels("label," + ",".join(f"pixel{number}" for number in range(784))),
    "MNIST without a header": pixels(None),
    "digits": pixels("label," + ",".join(f"{number // 8}x{number % 8}" for number in range(64)), count=64),
    "FER": pixels("emotion,pixels", " ", 48 * 48),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_pixels_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(TABLES[name])
    for text in (path, tmp_path):
        with pytest.raises(VisionAdaptError) as caught:
            _ = open_source(str(text)).classes
        message = str(caught.value)
        assert str(path) in message and "own-source" in message and len(message) < 500, message


@pytest.mark.parametrize("image", ["{0}.jpg", "{0}"])
def test_many_columns_of_classes_are_no_pixels(tmp_path: Path, image: str) -> None:
    header = "image," + ",".join(f"class{number}" for number in range(81))
    rows = [f"{image.format(row)},{','.join(str(int(row == number)) for number in range(81))}" for row in range(20)]
    (tmp_path / "a.csv").write_text("\n".join([header, *rows]))
    table = TableSource(tmp_path / "a.csv")
    assert not table.holds_pixels and "class80" in table.example
