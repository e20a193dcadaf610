"""File formats by their first bytes: which are read, and a helpful reason for those that are not."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version

READABLE = (
    *("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "ICO", "TGA", "CUR"),
    *("ICNS", "PSD", "QOI", "DDS", "SGI", "PCX", "DCX", "SUN", "MSP", "XBM", "XPM", "FLI", "PIXAR", "SPIDER"),
    *("BLP", "FTEX", "XVTHUMB"),
)
"""Pillow's raster formats to try. Left out: those that start programs or are only stubs (EPS, WMF, GRIB, HDF5, BUFR,
IPTC, MPEG), and one that unpacks without limit (FITS). MPO counts as JPEG. TGA, which has no signature, stands behind
what could pass for it, and before what it could pass for."""

_TEXT, _MOSTLY = 512, 0.8
"""Bytes to look at for text, and the share of them that is ASCII in text of an unknown encoding."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")

_FOREIGN: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), kind)
    for pattern, kind in (
        (
            rb"(\xef\xbb\xbf)?\s*(<!--.{0,2000}-->\s*)?(<!doctype html|<html|<head|<body)",
            "HTML: a web page was saved in its place",
        ),
        (
            rb"(\xef\xbb\xbf)?\s*(<\?xml.{0,2000})?(<!--.{0,2000})?(<!doctype svg.{0,500})?<svg",
            "SVG, a drawing: export it as PNG",
        ),
        (rb"(\xef\xbb\xbf)?\s*<\?xml", "XML"),
        (rb"%PDF", "PDF: export its pages as PNG"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript: export it as PNG"),
        (rb"\xd7\xcd\xc6\x9a|\x01\x00\x00\x00.{36} EMF", "a Windows metafile: export it as PNG"),
        (rb".{4}ftypcrx", "camera RAW (CR3): develop it to JPEG or TIFF"),
        (rb".{4}ftyp(qt|isom|iso\d|mp4|m4v|avc1|3g|M4A|dash|MSNV)|.{4}(wide|moov|mdat)", "video: extract its frames"),
        (rb"\x1aE\xdf\xa3|RIFF.{4}AVI |\x00\x00\x01[\xb3\xba]|FLV\x01|OggS", "video or sound: extract its frames"),
        (rb"RIFF.{4}WAVE|ID3|fLaC", "sound"),
        (
            rb"FUJIFILMCCD-RAW|II(RO|RS|U\x00)|II\*\x00.{4}CR|MMOR|FOVb|\x00MRM",
            "camera RAW: develop it to JPEG or TIFF",
        ),
        (
            rb"\x08\x00[\x00\x05\x08\x16\x18]\x00([A-Z]{2}|.\x00)",
            "DICOM without its signature: export it as PNG or TIFF",
        ),
        (rb"v/1\x01", "OpenEXR: save it as PNG or TIFF"),
        (rb"#\?(RADIANCE|RGBE)", "Radiance HDR: save it as PNG or TIFF"),
        (rb"SIMPLE  =", "FITS: save it as TIFF, or load it and give the array itself"),
        (
            rb"(\x5c\x01\x00\x00|\x00\x00\x01\x5c).{340}(n\+1|ni1)\x00|\x1c\x02\x00\x00n[+i][12]",
            "NIfTI, a volume: save its slices as PNG or TIFF",
        ),
        (rb"(\x5c\x01\x00\x00|\x00\x00\x01\x5c)\x00{20}", "Analyze, a volume: save its slices as PNG or TIFF"),
        (rb"(NRRD000\d|ObjectType *=|NDims *=|# vtk )", "a volume: save its slices as PNG or TIFF"),
        (rb"ZISRAWFILE|\xda\xce\xbe\x0a|\x70\x00\x00\x00.{4}\x2a", "a microscope's file: save its images as TIFF"),
        (rb"II\xbc[\x00\x01]", "JPEG XR: save it as PNG or TIFF"),
        (rb"P7\r?\n", "PAM: save it as PNG or PPM"),
        (rb"(?-i:PF)\s", "a colour PFM: save it as TIFF"),
        (rb"gimp xcf", "GIMP's XCF: export it as PNG"),
        (rb"PK\x03\x04.{26}mimetype", "a document or drawing in a ZIP archive: export it as PNG"),
        (rb"\xd0\xcf\x11\xe0", "an Office document or another OLE file: save its images as PNG"),
        (rb"[\x8a\x8b][MJ]NG\r\n", "MNG or JNG, which is not supported: save it as PNG"),
        (rb"FLIF|BPG\xfb|FORM.{4}(ILBM|PBM )|.{2048}PCD_|BA.{12}BM", "a rare image format: save it as PNG"),
        (
            rb"\xabKTX |PVR\x03|\x13\xab\xa1\x5c|sB\x13\x00",
            "a compressed texture, which is not supported: save it as PNG",
        ),
        (rb"msid\x01|\x65\x02\x00\x00\x00", "a map in a wavelet format: save it as TIFF"),
        (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL, which is not supported: convert it to PNG"),
        (rb"PK\x03\x04", "a ZIP archive: unpack it, or give it alone in place of a folder"),
        (rb"\x1f\x8b", "a gzip archive: unpack it"),
        (rb"[^\x00]{1,100}.{156,256}ustar", "a tar archive: unpack it, or give it alone in place of a folder"),
        (rb"Rar!|7z\xbc\xaf|BZh|\xfd7zXZ|\(\xb5/\xfd", "an archive: unpack it"),
        (rb"SQLite format 3", "an SQLite database"),
        (rb"\x89HDF|GRIB|BUFR|CDF[\x01\x02\x05]|MATLAB 5", "a scientific data file: convert it to PNG or TIFF"),
        (rb"\x93NUMPY", "a NumPy array: load it and give the array itself"),
        (rb"\x7fELF|MZ|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe|\x00asm", "a program"),
        (rb"PAR1|ARROW1|\x80[\x02-\x05]", "a table or Python objects, not an image"),
        (rb"\x00\x00\x00\x01Bud1|\x00\x05\x16[\x00\x07]|L\x00\x00\x00\x01\x14\x02", "a file manager's own file"),
        (rb"data:image/|/9j/|iVBORw0KGgo", "an image in Base64 text: decode it"),
        (rb"Salted__|-----BEGIN PGP|age-encryption", "an encrypted file: decrypt it"),
        (rb"BLENDER|glTF|Kaydara FBX|ply\s|solid ", "a 3-D model: render it as PNG"),
        (rb"\x00\x01\x00\x00\x00.{3}|OTTO|wOF[F2]", "a font"),
        (rb"version https://git-lfs", "a Git LFS pointer: run 'git lfs pull'"),
        (rb"\s*[\[{]\s*[\"\[{\d\]}]", "JSON"),
    )
)


def kind_of(data: bytes) -> str | None:
    """Return `"jpeg"`, `"heif"` or `"avif"` by signature, which need a way of their own; None for any other file."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[4:8] != b"ftyp":
        return None
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 64), 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "avif"
    return "heif" if brands[0] in _HEIF_BRANDS else None


def is_dicom(data: bytes) -> bool:
    """Whether a file has the signature of DICOM (PS3.10, 7.1)."""
    return data[128:132] == b"DICM"


def extra_decoder(data: bytes) -> str:
    """Return name and version of the extra library that decodes a file; empty for Pillow's and simplejpeg's formats."""
    if is_dicom(data):
        return _installed("pydicom")
    return _installed("pillow-heif") if kind_of(data) == "heif" else ""


@cache
def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


def foreign_reason(data: bytes) -> str | None:
    """Explain why a file is refused by its first bytes: `not a readable image: it begins like HTML …`; else None."""
    head = data[:4096]
    names = (name for pattern, name in _FOREIGN if pattern.match(head))
    name = next(names, None)
    return name and f"not a readable image: it begins like {name}"


def unread_reason(data: bytes) -> str:
    """Explain why a file that no decoder takes is refused."""
    name = image_format(data)
    if name:
        return f"truncated or corrupt {name}: its header cannot be read"
    if not data.strip(b"\0"):
        return f"not an image: its {len(data)} bytes are all zero"
    if _is_text(data[:_TEXT]):
        return "not an image: it begins like a text file"
    return f"not an image of a known format: it begins with the bytes {data[:8].hex(' ')}"


def _is_text(head: bytes) -> bool:
    """Whether bytes are text in UTF-8, in UTF-16 with its mark, or in an 8-bit encoding and mostly ASCII."""
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = head.decode(encoding, errors="strict" if len(head) < _TEXT else "ignore")
    except UnicodeDecodeError:
        ascii_share = sum(byte < 128 for byte in head) / len(head)
        return ascii_share > _MOSTLY and not any(byte < 32 and byte not in b"\r\n\t" for byte in head)
    return bool(text) and all(character.isprintable() or character in "\r\n\t\ufeff" for character in text)


_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"RIFF", "WebP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "PSD"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"icns", "ICNS"),
    (b"\0\0\1\0", "ICO"),
    (b"\x01\xda", "SGI"),
    *((bytes((0x0A, version, 1)), "PCX") for version in (0, 2, 3, 4, 5)),
    *((b"P%d" % number, "PNM") for number in range(1, 7)),
)


def image_format(data: bytes) -> str | None:
    """Return the image format whose signature the file carries, though its header is unreadable; else None."""
    if kind_of(data) in ("avif", "heif"):
        return "AVIF" if kind_of(data) == "avif" else "HEIC"
    names = [name for signature, name in _SIGNATURES if data.startswith(signature)]
    if names == ["WebP"] and data[8:12] != b"WEBP":
        return None
    return names[0] if names else None
