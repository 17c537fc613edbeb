import pytest
import torch

from shapes import photos

SHIPPED = {"sklearn.datasets.images": {"china.jpg": "a temple in China"}}


def test_crops_are_captioned_by_their_subject_and_by_how_much_they_show() -> None:
    crops = photos.load(SHIPPED, 30)
    assert crops.pixels.shape == (30, 3, 64, 64)
    assert crops.pixels.dtype == torch.uint8
    views = {text.removeprefix("a photo of a temple in China, ") for text in crops.texts}
    assert views == {view for _, view in photos.VIEWS}


def test_the_same_seed_gives_the_same_crops_and_another_seed_others() -> None:
    first, again, other = (photos.load(SHIPPED, 3, seed).pixels for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("package", ["sklearn.datasets.images", "no_such_package"])
def test_a_missing_photograph_names_the_packages_to_install(package: str) -> None:
    with pytest.raises(ValueError, match=f"{package}/none.jpg is missing; run: pip install"):
        photos.load({package: {"none.jpg": "nothing"}}, 1)


def test_no_photograph_is_both_trained_on_and_held_out() -> None:
    trained, heldout = (
        {(package, name) for package, names in subjects.items() for name in names}
        for subjects in (photos.SUBJECTS, photos.HELDOUT)
    )
    assert not trained & heldout


def test_textures_repeat_by_seed_and_fill_the_range() -> None:
    first, again = photos.textures(8), photos.textures(8)
    assert torch.equal(first, again)
    assert first.min() < 30
    assert first.max() > 225
