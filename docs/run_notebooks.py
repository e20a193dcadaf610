"""Execute the notebooks and save their outputs, small: `python docs/run_notebooks.py [NAME …]`.

They run next to a copy of the sample images, so that what they write stays out of the repository. Large PNG outputs
become JPEG.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
LARGE, WIDTH = 30_000, 900


def main(names: list[str]) -> None:
    """Run the named notebooks, or all of them."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if not names or path.stem in names:
            notebook = executed(path)
            nbformat.write(notebook, path)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VISIONADAPT_CACHE"] = f"{folder}/cache"
        os.environ["IPYTHONDIR"] = f"{folder}/ipython"
        shutil.copytree(ROOT / "sample_images", Path(folder, "sample_images"))
        Path(folder, "notebooks").mkdir()
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": f"{folder}/notebooks"}}).execute()
        notebook = nbformat.reads(nbformat.writes(notebook).replace(f"{folder}/notebooks/", ""), as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day, other in every run
        for output in cell.get("outputs", []):
            if len(output.get("data", {}).get("image/png", "")) > LARGE:
                output.data["image/jpeg"] = as_jpeg(output.data.pop("image/png"))
    return notebook


def as_jpeg(png: str) -> str:
    """The image of a base64 PNG as base64 JPEG."""
    buffer, image = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    image.thumbnail((WIDTH, WIDTH))
    image.save(buffer, "JPEG", quality=70, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    main(sys.argv[1:])
