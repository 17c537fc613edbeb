import io
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import steps.data.shards.shard_writer
from params.programs import DownloadSettings
from steps.data.shards.picture_reader import FetchedPicture, PictureReader
from tests.steps.data import drawn_pictures
from tests.steps.data.drawn_pictures import SIZE, difference, grey, hole_on_white, jpeg, png, scene, turned
from tests.steps.data.picture_kinds import CUT, DAMAGED, GREY, HOLES, KINDS, NO_PICTURES, UNREAD
from tests.steps.data.web import bomb

VISIBLE = 2.0
"""Mean CIE76 distance: JPEG at quality 95, twice, costs up to 1.5 of it."""


def reader(**settings: object) -> PictureReader:
    values = {"image_size_px": min(SIZE), "resize_mode": "keep_ratio", "min_image_size_px": 16, **settings}
    return PictureReader(DownloadSettings.model_validate(values))


def shown(content: bytes, **settings: object) -> Image.Image:
    body, width, height, *_, cause = reader(**settings)(FetchedPicture(content, 0))
    assert cause is None
    assert body is not None
    picture = Image.open(io.BytesIO(body))
    assert (picture.mode, picture.size) == ("RGB", (width, height))
    return picture


def cause(content: bytes, **settings: object) -> str | None:
    body, *_, found = reader(**settings)(FetchedPicture(content, 0))
    assert (body is None) == (found is not None)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_any_kind_is_stored_as_it_is_meant_to_be_seen(kind: str) -> None:
    picture = shown(KINDS[kind]())
    assert picture.size == SIZE
    assert difference(picture, scene()) < VISIBLE


@pytest.mark.parametrize("kind", GREY)
def test_grey_becomes_colours_of_the_same_look(kind: str) -> None:
    assert difference(shown(GREY[kind]()), grey()) < VISIBLE


def test_a_tiff_that_was_cut_is_truncated() -> None:
    assert cause(drawn_pictures.saved(scene(), "TIFF")[:-1]) == "truncated"


def test_what_the_first_frame_of_a_gif_does_not_cover_is_white() -> None:
    assert difference(shown(drawn_pictures.offset_gif()), drawn_pictures.offset_on_white()) < VISIBLE


def test_a_profile_that_a_png_cannot_unpack_is_said_to_be_ignored() -> None:
    for kind in (zlib.compress(bytes(5 << 20)), b"broken"):
        chunks = ((b"iCCP", b"x\0\0" + kind),)
        read = reader()
        assert read(FetchedPicture(drawn_pictures.raw_png(np.asarray(scene()), 8, 2, chunks), 0))[0]
        assert read.measured[0].profile_ignored


@pytest.mark.parametrize("kind", HOLES)
def test_what_is_transparent_lies_on_white(kind: str) -> None:
    picture = shown(HOLES[kind]())
    assert difference(picture, hole_on_white()) < VISIBLE
    assert min(picture.getpixel((SIZE[0] - 9, SIZE[1] - 9))) > 250  # type: ignore[type-var,arg-type]


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_picture_that_is_broken_inside_is_corrupt(kind: str) -> None:
    assert cause(DAMAGED[kind]()) == "corrupt"


@pytest.mark.parametrize("kind", CUT)
def test_a_picture_that_was_cut_off_is_truncated(kind: str) -> None:
    assert cause(CUT[kind]()) == "truncated"


@pytest.mark.parametrize("kind", UNREAD)
def test_a_format_that_is_not_read_has_a_cause_of_its_own(kind: str) -> None:
    assert cause(UNREAD[kind]) == "unsupported_format"


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_anything_else_is_no_picture(kind: str) -> None:
    assert cause(NO_PICTURES[kind]) == "not_a_picture"


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    assert cause(bomb(3000), max_image_megapixels=1) == "too_many_pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert cause(bomb(3000), max_image_megapixels=1) == "too_many_pixels"


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    content = jpeg(progressive=True)
    place = content.rindex(b"\xff\xda")
    assert cause(content[:place] + content[place:-2] * 200 + b"\xff\xd9") == "corrupt"


def test_a_small_picture_is_left_out_or_blown_up_and_counted_where_a_setting_says_so() -> None:
    small = jpeg(scene((100, 80)))
    assert cause(small) == "too_small"
    assert cause(small, upscale=True, min_image_size_px=90) == "too_small"
    one = reader(upscale=True)
    assert one(FetchedPicture(small, 7))[1:5] == (150, 120, 100, 80)
    assert one.measured[7].is_upscaled
    assert not cause(jpeg(), upscale=True)


def test_too_elongated_pictures_are_left_out() -> None:
    assert cause(png(scene((600, 160)))) == "aspect_ratio"
    assert cause(png(scene((160, 600)))) == "aspect_ratio"


def test_what_was_done_to_a_picture_is_measured() -> None:
    one = reader()
    kinds = [
        KINDS["jpeg in Display P3, turned"](),
        HOLES["png"](),
        KINDS["gif animated"](),
    ]
    kinds += [KINDS["jpeg with a broken profile"](), jpeg()]
    sizes = [one(FetchedPicture(content, row))[3:5] for row, content in enumerate(kinds)]
    assert sizes == [SIZE] * 5, "of the upright picture"
    measured = [one.measured[row] for row in range(5)]
    assert [found.format for found in measured] == ["JPEG", "PNG", "GIF", "JPEG", "JPEG"]
    assert [found.orientation for found in measured] == [8, 1, 1, 1, 1]
    assert [found.profile for found in measured] == ["Display P3", None, None, None, None]
    assert [found.profile_ignored for found in measured] == [False, False, False, True, False]
    assert [found.has_alpha for found in measured] == [False, True, False, False, False]
    assert [found.is_animated for found in measured] == [False, False, True, False, False]


def test_copies_that_are_turned_or_in_other_colours_have_one_look() -> None:
    one = reader()
    kinds = ["jpeg", "jpeg turned 6", "jpeg in Display P3", "png", "avif"]
    for row, kind in enumerate(kinds):
        one(FetchedPicture(KINDS[kind](), row))
    looks = [one.measured[row].perceptual_hash or 0 for row in range(len(kinds))]
    assert max((look ^ looks[0]).bit_count() for look in looks) <= 3


def test_a_blocked_look_is_left_out() -> None:
    one = PictureReader(DownloadSettings(image_size_px=120), is_blocked=lambda look: look is not None)
    assert one(FetchedPicture(jpeg(), 0))[5] == "blocked_picture"
    assert one.measured == {}


def test_boxes_are_blurred_where_the_stored_picture_has_them() -> None:
    for content, box in ((jpeg(), (0.4, 0.3, 0.6, 0.7)), (jpeg(turned(6)[0], exif=turned(6)[1]), (0.3, 0.4, 0.7, 0.6))):
        body = reader()(FetchedPicture(content, 0, [box]))[0]
        assert body is not None
        picture = np.asarray(Image.open(io.BytesIO(body))).astype(int)
        plain = np.asarray(scene()).astype(int)
        assert np.abs(picture - plain)[50:70, 70:90].mean() > 15, "the middle, where four colours meet"
        assert np.abs(picture - plain)[:20].mean() < 3


@pytest.mark.parametrize("mode", ["center_crop", "keep_ratio"])
@pytest.mark.parametrize("size", [(160, 120), (301, 203), (97, 160)])
def test_a_plain_jpeg_gives_the_bytes_that_img2dataset_makes(mode: str, size: tuple[int, int]) -> None:
    # It keeps albumentations from asking the network, and its warnings quiet.
    assert steps.data.shards.shard_writer
    from img2dataset.resizer import Resizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = Resizer(64, mode, False, encode_quality=95)
    content = jpeg(scene(size))
    assert reader(image_size_px=64, resize_mode=mode)(FetchedPicture(content, 0)) == plain(io.BytesIO(content))


def test_an_error_costs_its_row_and_not_the_shard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("on the moon")

    monkeypatch.setattr("steps.data.shards.picture_reader.perceptual_hash", fail)
    assert cause(jpeg()) == "unexpected"
    assert "on the moon" in capsys.readouterr().err


BODIES = {name: KINDS[name]() for name in KINDS if "film" not in name and "inks" not in name}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(BODIES)), st.integers(0), st.binary(min_size=1, max_size=40), st.booleans())
def test_whatever_the_bytes_a_row_is_a_picture_or_has_a_cause(kind: str, place: int, noise: bytes, cut: bool) -> None:
    content = BODIES[kind]
    # Headers, where most of a parser's branches are, get half of the noise.
    place %= len(content) if place % 2 else min(len(content), 700)
    rest = b"" if cut else content[place + len(noise) :]
    found = cause(content[:place] + noise + rest, max_image_megapixels=1)
    assert found in {
        *(None, "corrupt", "truncated", "unsupported_format", "not_a_picture"),
        *("too_small", "too_many_pixels", "aspect_ratio"),
    }
