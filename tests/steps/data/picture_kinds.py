"""The kinds in which the web, cameras and folders have pictures.

Each of KINDS makes the bytes of the scene (SIZE, four colours with some texture) as that kind has it: a viewer that
knows what it does shows the scene. Each of DAMAGED and of UNREAD makes bytes that are to be refused.
"""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.steps.data.drawn_pictures import (
    ADOBE_RGB,
    DISPLAY_P3,
    LINEAR_GREY,
    PROPHOTO,
    SIZE,
    SRGB,
    TURNS,
    animation,
    app_segment,
    chunk,
    coded_avif,
    cut,
    exif_jpeg,
    exif_only,
    film,
    flipped,
    grey,
    grey12,
    grey16,
    in_coded_p3,
    in_linear_light,
    in_space,
    ink_profile,
    inks,
    jpeg,
    jpeg_2000_in_p3,
    linear16,
    png,
    raw_exif_png,
    raw_png,
    saved,
    scans_of,
    scene,
    tiff,
    turned,
    turned_as,
    wide,
    with_hole,
    with_jfif_version,
    with_odd_scan,
    with_segment,
    with_stray_bytes,
    zeroed,
)

Kind = Callable[[], bytes]

KINDS: dict[str, Kind] = {
    "jpeg": jpeg,
    "jpeg progressive": lambda: jpeg(progressive=True),
    "jpeg with subsampled colours": lambda: jpeg(subsampling=2, quality=97),
    "jpeg with restart markers": lambda: jpeg(restart_marker_blocks=3),
    "jpeg with optimized tables": lambda: jpeg(optimize=True),
    "jpeg of RGB": lambda: jpeg(keep_rgb=True),
    "jpeg without end marker": lambda: jpeg()[:-2],
    "jpeg filled up before its end": lambda: jpeg()[:-2] + bytes(500) + b"\xff\xd9",
    "jpeg with line ends behind it": lambda: jpeg() + b"\r\n\r\n",
    "jpeg with a film behind it": lambda: jpeg() + film(),
    "jpeg with a thumbnail": lambda: with_segment(jpeg(), app_segment(1, b"Exif\0\0" + jpeg(scene((40, 30))))),
    "jpeg with a comment": lambda: jpeg(comment=b"\xff\xd9 and more"),
    "jpeg of several pictures": lambda: saved(
        scene(), "MPO", save_all=True, append_images=[grey()], quality=95, subsampling=0
    ),
    **{f"jpeg turned {number}": lambda number=number: exif_jpeg(number) for number in TURNS},
    "jpeg turned 0": lambda: jpeg(exif=exif_only(0)),
    "jpeg turned 99": lambda: jpeg(exif=exif_only(99)),
    "jpeg with broken EXIF": lambda: jpeg(exif=exif_only(6, broken=True)),
    "jpeg of an unknown version of JFIF": lambda: with_jfif_version(jpeg()),
    "jpeg with odd limits of its scan": lambda: with_odd_scan(jpeg()),
    "jpeg with stray bytes between segments": lambda: with_stray_bytes(jpeg()),
    "jpeg with another one behind it": lambda: jpeg() + jpeg(grey()),
    "jpeg in Adobe RGB": lambda: jpeg(in_space(ADOBE_RGB), icc_profile=ADOBE_RGB),
    "jpeg in Display P3": lambda: jpeg(in_space(DISPLAY_P3), icc_profile=DISPLAY_P3),
    "jpeg in ProPhoto": lambda: jpeg(in_space(PROPHOTO), icc_profile=PROPHOTO, quality=98),
    "jpeg in sRGB, said so": lambda: jpeg(icc_profile=SRGB),
    "jpeg in Display P3, turned": lambda: jpeg(
        in_space(DISPLAY_P3, turned(8)[0]), icc_profile=DISPLAY_P3, exif=turned(8)[1]
    ),
    "jpeg with a broken profile": lambda: jpeg(icc_profile=b"\xff" * 500),
    "jpeg with a profile of inks": lambda: jpeg(icc_profile=ink_profile()),
    "jpeg with a huge profile": lambda: jpeg(icc_profile=ADOBE_RGB + bytes(5 << 20)),
    "jpeg of inks": lambda: jpeg(inks(scene())),
    "jpeg of inks with a profile": lambda: jpeg(inks(scene()), icc_profile=ink_profile()),
    "tiff of inks with a profile": lambda: saved(inks(scene()), "TIFF", icc_profile=ink_profile()),
    "png": png,
    "png of palette": lambda: png(scene().quantize(256)),
    "png interlaced and in Display P3": lambda: png(in_space(DISPLAY_P3), icc_profile=DISPLAY_P3),
    "png of 16 bits": lambda: raw_png(wide(), 16, 2),
    "png of 16 bits with alpha": lambda: raw_png(np.dstack([wide(), np.full(SIZE[::-1], 65535, np.uint16)]), 16, 6),
    "png turned": lambda: turned_as("PNG"),
    "png turned, said in a text": raw_exif_png,
    "png in linear light": lambda: raw_png(linear16(), 16, 2, ((b"gAMA", struct.pack(">I", 100_000)),)),
    "png with the gamma of sRGB": lambda: raw_png(np.asarray(scene()), 8, 2, ((b"gAMA", struct.pack(">I", 45_455)),)),
    "png with a gamma of nothing": lambda: raw_png(np.asarray(scene()), 8, 2, ((b"gAMA", bytes(4)),)),
    "png in sRGB, with another gamma": lambda: raw_png(
        np.asarray(scene()), 8, 2, ((b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000)))
    ),
    "png in coded Display P3": lambda: raw_png(np.asarray(in_coded_p3()), 8, 2, ((b"cICP", bytes([12, 13, 0, 1])),)),
    "png with primaries of Display P3": lambda: raw_png(
        np.asarray(in_coded_p3()),
        8,
        2,
        (
            (b"gAMA", struct.pack(">I", 45_455)),
            (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        ),
    ),
    "png with primaries of nothing": lambda: raw_png(
        np.asarray(scene()), 8, 2, ((b"gAMA", struct.pack(">I", 45_455)), (b"cHRM", bytes(32)))
    ),
    "png with endless words": lambda: raw_png(
        np.asarray(scene()), 8, 2, ((b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3 << 20))),)
    ),
    "png with an endless profile": lambda: raw_png(
        np.asarray(scene()), 8, 2, ((b"iCCP", b"x\0\0" + zlib.compress(bytes(5 << 20))),)
    ),
    "png animated": lambda: animation("PNG", scene()),
    "png with bytes behind it": lambda: png() + b"<!-- served by -->",
    "gif": lambda: saved(scene().quantize(256), "GIF"),
    "gif animated": lambda: animation("GIF", scene().quantize(256)),
    "webp": lambda: saved(scene(), "WEBP", quality=95),
    "webp lossless": lambda: saved(scene(), "WEBP", lossless=True),
    "webp turned": lambda: turned_as("WEBP", lossless=True),
    "webp in Adobe RGB": lambda: saved(in_space(ADOBE_RGB), "WEBP", lossless=True, icc_profile=ADOBE_RGB),
    "webp animated": lambda: animation("WEBP", scene(), lossless=True),
    "bmp": lambda: saved(scene(), "BMP"),
    "avif": lambda: saved(scene(), "AVIF", quality=95),
    "avif turned": lambda: turned_as("AVIF", quality=95),
    "avif in coded Display P3": lambda: coded_avif(in_coded_p3(), 12, 13),
    "avif in Display P3": lambda: saved(in_space(DISPLAY_P3), "AVIF", quality=95, icc_profile=DISPLAY_P3),
    "tiff": lambda: saved(scene(), "TIFF"),
    "tiff compressed": lambda: saved(scene(), "TIFF", compression="tiff_lzw"),
    "tiff turned": lambda: saved(turned(6)[0], "TIFF", tiffinfo={0x0112: 6}),
    "tiff of several pages": lambda: saved(scene(), "TIFF", save_all=True, append_images=[grey()]),
    "jpeg 2000": lambda: saved(scene(), "JPEG2000"),
    "jpeg 2000 in Display P3": jpeg_2000_in_p3,
    "jpeg 2000 without boxes": lambda: saved(scene(), "JPEG2000", no_jp2=True),
}

GREY: dict[str, Kind] = {
    "jpeg": lambda: jpeg(scene().convert("L")),
    "jpeg in linear light": lambda: jpeg(in_linear_light(scene()), icc_profile=LINEAR_GREY, quality=98),
    "jpeg with a profile of colours": lambda: jpeg(scene().convert("L"), icc_profile=SRGB),
    "png": lambda: png(scene().convert("L")),
    "png of 16 bits": lambda: raw_png(grey16(), 16, 0),
    "png of 16 bits with alpha": lambda: raw_png(np.dstack([grey16(), np.full(SIZE[::-1], 65535, np.uint16)]), 16, 4),
    "tiff of 16 bits": lambda: saved(Image.fromarray(grey16()), "TIFF"),
    "tiff of 16 bits, 0 is white": lambda: tiff((65535 - grey16()).astype("<u2").tobytes(), 16, photometric=0),
    "tiff of 12 bits": lambda: tiff(grey12(), 12),
    "tiff, 0 is white": lambda: tiff((255 - np.asarray(scene().convert("L"))).tobytes(), 8, photometric=0),
    "webp": lambda: saved(grey(), "WEBP", lossless=True),
}

HOLES: dict[str, Kind] = {
    "png": lambda: png(with_hole()),
    "png of palette": lambda: png(with_hole().quantize(256, Image.Quantize.FASTOCTREE)),
    "png with a colour for nothing": lambda: raw_png(
        np.array(with_hole())[..., :3], 8, 2, ((b"tRNS", struct.pack(">3H", 255, 0, 0)),)
    ),
    "gif": lambda: saved(with_hole(), "GIF"),
    "webp": lambda: saved(with_hole(), "WEBP", lossless=True),
    "avif": lambda: saved(with_hole(), "AVIF", quality=95),
    "tiff": lambda: saved(with_hole(), "TIFF"),
    "jpeg 2000": lambda: saved(with_hole(), "JPEG2000"),
    "png turned": lambda: png(with_hole().transpose(TURNS[6]), exif=turned(6)[1]),
}


DAMAGED: dict[str, Kind] = {
    "jpeg, middle zeroed": lambda: zeroed(jpeg()),
    "jpeg, a third with an end": lambda: jpeg()[: len(jpeg()) // 3] + b"\xff\xd9",
    "jpeg, restart markers, middle zeroed": lambda: zeroed(jpeg(restart_marker_blocks=3)),
    "jpeg, progressive, first scan with an end": lambda: scans_of(jpeg(progressive=True), 1),
    "jpeg, progressive, without the last scan": lambda: scans_of(jpeg(progressive=True), 9),
    "jpeg, progressive, middle zeroed": lambda: zeroed(jpeg(progressive=True)),
    "jpeg, middle zeroed, a film behind": lambda: zeroed(jpeg()) + film(),
    "jpeg, unknown version of JFIF, middle zeroed": lambda: zeroed(with_jfif_version(jpeg())),
    "jpeg, odd limits of its scan, middle zeroed": lambda: zeroed(with_odd_scan(jpeg())),
    "jpeg, stray bytes, middle zeroed": lambda: zeroed(with_stray_bytes(jpeg())),
    "jpeg, half of it, another one behind": lambda: jpeg()[: len(jpeg()) // 2] + jpeg(grey()),
    "png, a byte flipped": lambda: flipped(png(), 0.5, 1),
    "png, header's checksum": lambda: flipped(png(), 30 / len(png()), 1),
    "png, a third with an end": lambda: png()[: len(png()) // 3] + chunk(b"IEND", b""),
    "gif, a third with an end": lambda: saved(scene().quantize(256), "GIF")[:5000] + b";",
    "webp, middle zeroed": lambda: zeroed(saved(scene(), "WEBP", lossless=True)),
    "avif, middle zeroed": lambda: zeroed(saved(scene(), "AVIF", quality=95)),
    "tiff, middle zeroed": lambda: zeroed(saved(scene(), "TIFF", compression="tiff_deflate")),
    "jpeg 2000, head zeroed": lambda: zeroed(saved(scene(), "JPEG2000"), 0.0035, 0.02),
    "jpeg of noise": lambda: b"\xff\xd8\xff\xda" + bytes(range(200)) + b"\xff\xd9",
}


CUT: dict[str, Kind] = {
    "jpeg": lambda: cut(jpeg()),
    "jpeg progressive": lambda: cut(jpeg(progressive=True)),
    "png": lambda: cut(png()),
    "gif": lambda: cut(saved(scene().quantize(256), "GIF")),
    "webp": lambda: cut(saved(scene(), "WEBP", lossless=True)),
    "bmp": lambda: cut(saved(scene(), "BMP")),
    "avif": lambda: cut(saved(scene(), "AVIF", quality=95)),
    "jpeg 2000": lambda: cut(saved(scene(), "JPEG2000")),
}

UNREAD: dict[str, bytes] = {
    "svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "svg, bare": b"<svg/>",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "jpeg xl": b"\xff\x0a" + bytes(100),
    "jpeg xl in a box": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
    "photoshop": b"8BPS\0\x01" + bytes(100),
    "pdf": b"%PDF-1.7\n",
    "icon": b"\0\0\x01\0\x01\0" + bytes(100),
    "pnm": b"P6\n4 4\n255\n" + bytes(48),
    "openexr": b"\x76\x2f\x31\x01" + bytes(100),
    "tiff of floats": saved(Image.fromarray(np.zeros((120, 160), np.float32)), "TIFF"),
    "tiff of 24 bits a sample": tiff(bytes(3 * SIZE[0] * SIZE[1]), 24),
    "tiff of numbers with a sign": tiff(bytes(SIZE[0] * SIZE[1]), 8, sample_format=2),
    "tiff of 16 bits with a sign": tiff(bytes(2 * SIZE[0] * SIZE[1]), 16, sample_format=2),
    "png of light (PQ)": raw_png(np.asarray(scene()), 8, 2, ((b"cICP", bytes([9, 16, 0, 1])),)),
    "avif of light (HLG)": coded_avif(scene(), 9, 18),
    "tiff of 32 bits": saved(Image.fromarray(np.zeros((120, 160), np.int32)), "TIFF"),
}

NO_PICTURES: dict[str, bytes] = {
    "nothing": b"",
    "html": b"<!DOCTYPE html><html><svg/></html>",
    "text": b"BMW is a maker of cars",
    "json": b'{"error": "gone"}',
    "film": b"\0\0\0\x18ftypmp42" + bytes(100),
    "start of a jpeg": b"\xff\xd8",
    "zeros": bytes(100),
}
