"""Draws one scene, and saves it as the web, cameras and folders do: turned, in other colours, damaged."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, PngImagePlugin

Pixels = npt.NDArray[np.uint8]

SIZE = (160, 120)
T = Image.Transpose
# How a picture is stored so that a viewer which obeys the tag shows the scene.
TURNS = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE}
TURNS |= {6: T.ROTATE_90, 7: T.TRANSVERSE, 8: T.ROTATE_270}


def scene(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """Return the scene: red, green, blue and near-white quarters, of which no two turns or colour spaces look alike."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.float64)
    top, left = height // 2, width // 2
    pixels[:top, :left], pixels[:top, left:] = (215, 40, 50), (40, 170, 70)
    pixels[top:, :left], pixels[top:, left:] = (50, 70, 200), (230, 230, 225)
    blots = np.random.default_rng(seed).normal(0, 14, (height // 12 + 1, width // 12 + 1)).astype(np.float32)
    texture = np.asarray(Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(pixels + texture[..., None], 0, 255).astype(np.uint8))


def lab(picture: Image.Image) -> npt.NDArray[np.float64]:
    """Return CIELAB (D65) of an sRGB picture, [H, W, 3] (IEC 61966-2-1; CIE 15)."""
    rgb = np.asarray(picture.convert("RGB")).astype(np.float64) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean CIE76 distance of two pictures of one size."""
    return float(np.sqrt(((lab(one) - lab(other)) ** 2).sum(-1)).mean())


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(picture: Image.Image | None = None, **options: Any) -> bytes:
    return saved(picture or scene(), "JPEG", **{"quality": 95, "subsampling": 0, **options})


def png(picture: Image.Image | None = None, **options: Any) -> bytes:
    return saved(picture or scene(), "PNG", **options)


def turned(orientation: int) -> tuple[Image.Image, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return scene().transpose(TURNS[orientation]), exif


def profile(name: str, space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """Return an ICC profile, version 2.4, with these tags (ICC.1:2001-04)."""
    text = name.encode()
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(79),
        b"cprt": b"text\0\0\0\0x\0",
        b"wtpt": _xyz((0.9642, 1, 0.8249)),
        **tags,
    }
    offset, body, table = 128 + 4 + 12 * len(tags), b"", struct.pack(">I", len(tags))
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += content
    kind = b"mntr" if space != b"CMYK" else b"prtr"
    head = struct.pack(">I4sI4s4s4s", offset + len(body), b"none", 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz((0.9642, 1, 0.8249))[8:]
    return head.ljust(128, b"\0") + table + body


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(name: str, primaries: list[tuple[float, float, float]], gamma: float) -> bytes:
    colours = {tag: _xyz(xyz) for tag, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    return profile(name, b"RGB ", colours | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma)))


# Primaries relative to D50, as these spaces' profiles have them.
ADOBE_RGB = rgb_profile(
    "Adobe RGB (1998)",
    [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)],
    2.19921875,
)
DISPLAY_P3 = rgb_profile(
    "Display P3", [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)], 2.2
)
PROPHOTO = rgb_profile(
    "ProPhoto RGB", [(0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)], 1.8
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LINEAR_GREY = profile("Linear grey", b"GRAY", {b"kTRC": _curve(1.0)})


def ink_profile() -> bytes:
    """Return a CMYK profile: inks multiply, and paper is white. A table of 9 levels a channel (lut8Type)."""
    levels = 9
    amounts = np.linspace(1, 0, levels)
    c, m, y, k = np.meshgrid(amounts, amounts, amounts, amounts, indexing="ij")
    colours = np.stack([c * k, m * k, y * k], -1).reshape(1, -1, 3)
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    table = ImageCms.applyTransform(Image.fromarray((colours * 255).round().astype(np.uint8)), to_lab)
    # Pillow's a and b are signed bytes, the profile's begin at -128.
    values = np.frombuffer(table.tobytes(), np.uint8).reshape(-1, 3) ^ np.array([0, 128, 128], np.uint8)
    identity = struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    straight = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, levels, 0]) + identity + 4 * straight + values.tobytes() + 3 * straight
    return profile("Inks", b"CMYK", {b"A2B0": lut}, b"Lab ")


def in_space(icc: bytes, picture: Image.Image | None = None) -> Image.Image:
    """Return the numbers that show the picture through an RGB profile."""
    source = ImageCms.createProfile("sRGB")
    target = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    found = ImageCms.profileToProfile(picture or scene(), source, target, renderingIntent=1, outputMode="RGB")
    assert found is not None
    return found


def grey() -> Image.Image:
    return scene().convert("L").convert("RGB")


def in_linear_light(picture: Image.Image) -> Image.Image:
    """Return grey numbers that are proportional to light."""
    v = np.asarray(picture.convert("L")) / 255
    return Image.fromarray(
        (np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) * 255).round().astype(np.uint8)
    )


def inks(picture: Image.Image) -> Image.Image:
    """Return CMYK without black: 255 is all of an ink."""
    return Image.merge(
        "CMYK", [*(band.point(lambda v: 255 - v) for band in picture.split()), Image.new("L", picture.size)]
    )


def raw_png(
    pixels: npt.NDArray[Any], bits: int, colour: int, chunks: tuple[tuple[bytes, bytes], ...] = (), interlace: int = 0
) -> bytes:
    """Return a PNG, unfiltered, of numbers as they are: Pillow does not write 16 bits of colour."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_hole() -> Image.Image:
    """Return the scene whose near-white quarter is transparent, with red where nobody sees it."""
    picture = scene().convert("RGBA")
    pixels = np.array(picture)
    pixels[SIZE[1] // 2 :, SIZE[0] // 2 :] = (255, 0, 0, 0)
    return Image.fromarray(pixels)


def hole_on_white() -> Image.Image:
    white = Image.new("RGB", SIZE, "white")
    white.paste(with_hole(), mask=with_hole().getchannel("A"))
    return white


def app_segment(number: int, content: bytes) -> bytes:
    return bytes([0xFF, 0xE0 + number]) + (len(content) + 2).to_bytes(2, "big") + content


def with_segment(content: bytes, segment: bytes) -> bytes:
    return content[:2] + segment + content[2:]


def wide() -> npt.NDArray[np.uint16]:
    return np.asarray(scene()).astype(np.uint16) * 257


def grey16() -> npt.NDArray[np.uint16]:
    return np.asarray(scene().convert("L")).astype(np.uint16) * 257


def exif_only(orientation: object = 6, broken: bool = False) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = exif.tobytes()
    return content[:9] + b"\xff" * 9 if broken else content


def exif_jpeg(orientation: int) -> bytes:
    picture, exif = turned(orientation)
    return jpeg(picture, exif=exif)


def turned_as(kind: str, orientation: int = 6, **options: Any) -> bytes:
    picture, exif = turned(orientation)
    return saved(picture, kind, exif=exif, **options)


def animation(kind: str, picture: Image.Image, **options: Any) -> bytes:
    second = Image.new(picture.mode, picture.size)
    return saved(picture, kind, save_all=True, append_images=[second], duration=100, **options)


def film() -> bytes:
    """What a motion photo has behind its end: a film, in which any bytes stand, also those of markers."""
    return b"\0\0\0\x18ftypmp42" + np.random.default_rng(0).bytes(200_000) + b"\xff\xd8\xff\xda\x00\x0c"


def tiff(pixels: bytes, bits: int, photometric: int = 1, sample_format: int = 1) -> bytes:
    """Return a grey TIFF, little-endian and in one strip, of numbers as they are."""
    tags = {256: SIZE[0], 257: SIZE[1], 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 12 * 10 + 4, 277: 1}
    tags |= {278: SIZE[1], 279: len(pixels), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels


def grey12() -> bytes:
    """Return two numbers in three bytes."""
    pairs = (np.asarray(scene().convert("L")).astype(np.uint32) * 4095 // 255).reshape(-1, 2)
    first, second = pairs[:, 0], pairs[:, 1]
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).tobytes()


def linear16() -> npt.NDArray[np.uint16]:
    """Return numbers that are proportional to light."""
    v = np.asarray(scene()) / 255
    light: npt.NDArray[np.uint16] = (np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) * 65535).astype(
        np.uint16
    )
    return light


def in_coded_p3() -> Image.Image:
    """Return the scene's numbers in Display P3 with sRGB's curve, by the matrices of CSS Color 4, 10.2."""
    to_p3 = np.array([[0.822462, 0.177538, 0.0], [0.033194, 0.966806, 0.0], [0.017083, 0.072397, 0.91052]])
    light = np.clip(linear16() / 65535 @ to_p3.T, 0, 1)
    values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return Image.fromarray((values * 255).round().astype(np.uint8))


def coded_avif(picture: Image.Image, primaries: int, transfer: int) -> bytes:
    content = saved(picture, "AVIF", quality=98, subsampling="4:4:4")
    place = content.index(b"colrnclx") + 8
    return content[:place] + struct.pack(">HH", primaries, transfer) + content[place + 4 :]


def jpeg_2000_in_p3() -> bytes:
    """Return a JPEG 2000 whose colours are a profile's (ISO/IEC 15444-1, I.5.3.3)."""
    content = saved(in_space(DISPLAY_P3), "JPEG2000")
    place = content.index(b"colr") - 4
    end = place + int.from_bytes(content[place : place + 4], "big")
    box = struct.pack(">I4s3B", 11 + len(DISPLAY_P3), b"colr", 2, 0, 0) + DISPLAY_P3
    parent = content.index(b"jp2h") - 4
    size = int.from_bytes(content[parent : parent + 4], "big") + len(box) - (end - place)
    return content[:parent] + struct.pack(">I", size) + content[parent + 4 : place] + box + content[end:]


def raw_exif_png() -> bytes:
    """Return a turned PNG with EXIF in a text, as ImageMagick writes it."""
    picture, exif = turned(6)
    text = PngImagePlugin.PngInfo()
    content = exif.tobytes()
    text.add_text("Raw profile type exif", f"\nexif\n{len(content):8d}\n{content.hex()}\n", zip=True)
    return png(picture, pnginfo=text)


def with_stray_bytes(content: bytes) -> bytes:
    return content[:20] + bytes(7) + content[20:]


def with_jfif_version(content: bytes, version: int = 3) -> bytes:
    place = content.index(b"JFIF\0") + 5
    return content[:place] + bytes([version]) + content[place + 1 :]


def with_odd_scan(content: bytes) -> bytes:
    """Return a sequential JPEG whose scan says that it ends at coefficient 0."""
    place = content.index(b"\xff\xda")
    end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return content[: end - 2] + b"\0" + content[end - 1 :]


def offset_gif() -> bytes:
    """Return a GIF whose first frame, the upper half of the scene, covers the lower half."""
    width, height = SIZE[0], SIZE[1] // 2
    content = bytearray(saved(scene().crop((0, 0, width, height)).quantize(256), "GIF"))
    content[6:10] = struct.pack("<HH", *SIZE)
    place = content.index(b",\0\0\0\0")
    content[place + 1 : place + 5] = struct.pack("<HH", 0, SIZE[1] - height)
    return bytes(content)


def offset_on_white() -> Image.Image:
    white = Image.new("RGB", SIZE, "white")
    white.paste(scene().crop((0, 0, SIZE[0], SIZE[1] // 2)), (0, SIZE[1] // 2))
    return white


def flipped(content: bytes, at: float, count: int = 4) -> bytes:
    place = int(len(content) * at)
    return content[:place] + bytes(255 - value for value in content[place : place + count]) + content[place + count :]


def zeroed(content: bytes, start: float = 0.4, stop: float = 0.6) -> bytes:
    first, last = int(len(content) * start), int(len(content) * stop)
    return content[:first] + bytes(last - first) + content[last:]


def scans_of(content: bytes, count: int) -> bytes:
    """Return a progressive JPEG that ends, with an end marker, after so many scans."""
    place = -1
    for _ in range(count + 1):
        place = content.index(b"\xff\xda", place + 1)
    # The tables of the next scan stand before it.
    tables = content.rindex(b"\xff\xc4", 0, place)
    return content[: min(place, tables)] + b"\xff\xd9"


def cut(content: bytes) -> bytes:
    return content[: len(content) * 3 // 5]
