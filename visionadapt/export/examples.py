"""The programs beside an exported model: texts that this library writes, and runs only where they are unchanged."""

from __future__ import annotations

from collections.abc import Mapping

from visionadapt.export.folder import ExportFormat

ONNX = '''"""Classify images with model.onnx: python example.py IMAGE ... (needs onnxruntime, numpy and pillow)"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"))
classes = json.loads(model.get_modelmeta().custom_metadata_map["class_names"])
for file in sys.argv[1:]:
    with Image.open(file) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = pixels.reshape(1, *pixels.shape[:2], -1)
    probabilities, index, abstain, distance, features = model.run(None, {"image": pixels})[:5]
    facts = {"label": classes[index[0]], "probability": float(probabilities[0, index[0]]), "abstain": bool(abstain[0])}
    print(json.dumps({"file": file, **facts, "cut_to_8_bits": image.mode[0] in "IF"}))
'''

TORCH = '''"""Classify images with model.pt2: python example.py IMAGE ... (needs torch, numpy and pillow)"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

metadata = {"metadata.json": ""}
model = torch.export.load(Path(__file__).with_name("model.pt2"), extra_files=metadata).module()
classes = json.loads(metadata["metadata.json"])["class_names"]
for file in sys.argv[1:]:
    with Image.open(file) as image:
        pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    answer = model(image=torch.from_numpy(pixels.reshape(1, *pixels.shape[:2], -1)))
    index, probability = int(answer["class_index"]), float(answer["probabilities"].max())
    facts = {"label": classes[index], "probability": probability, "abstain": bool(answer["abstain"])}
    print(json.dumps({"file": file, **facts, "cut_to_8_bits": image.mode[0] in "IF"}))
'''

JAVASCRIPT = """// Classify an image in a browser: `const { label, probability, abstain } = await classify(bitmap)`.
import * as ort from "onnxruntime-web";

const near = (name) => new URL(name, import.meta.url).href;
const model = await ort.InferenceSession.create(near("model.onnx"));
const { class_names: classes } = await (await fetch(near("manifest.json"))).json();

export function rgb(rgba) {
  return Uint8Array.from({ length: (rgba.length / 4) * 3 }, (_, at) => rgba[Math.floor(at / 3) * 4 + (at % 3)]);
}

export async function classify(bitmap) {
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data, height, width } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const image = new ort.Tensor("uint8", rgb(data), [1, height, width, 3]);
  const { class_index, probabilities, abstain } = await model.run({ image });
  const index = Number(class_index.data[0]);
  return { label: classes[index], probability: probabilities.data[index], abstain: Boolean(abstain.data[0]) };
}
"""


def examples(kind: ExportFormat, channels: int) -> Mapping[str, str]:
    """Return the texts by file name for images of so many channels; none where no common decoder makes them."""
    python = ONNX if kind == "onnx" else TORCH
    if channels == 1:
        return {"example.py": python.replace('"RGB"', '"L"')}
    if channels != 3:
        return {}
    return {"example.py": python, "example.mjs": JAVASCRIPT} if kind == "onnx" else {"example.py": python}
