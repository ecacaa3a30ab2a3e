"""Microstructures and the images they come from: what is accepted, and one clear line for the rest."""

import math

import h5py
import numpy as np
import pytest
from PIL import Image

from hpcmsm.errors import ConfigError
from hpcmsm.io.images import read_labels
from hpcmsm.micro.microstructure import make_microstructure

LABELS = np.arange(36).reshape(6, 6) % 3


def test_named_ones_know_their_limits():
    assert make_microstructure("laminate", None, 2).largest_fraction == 1.0
    assert make_microstructure("cylinders", 64, 2).largest_fraction == math.pi / 4
    assert make_microstructure("laminate", None, 2).resolution == 32
    assert make_microstructure("laminate", 12, 2).labels is None


def test_checkerboard_has_two_squares_of_each_phase():
    board = make_microstructure("checkerboard", 6, 2)
    low = np.kron([[0, 1], [1, 0]], np.ones((3, 3), int))
    assert np.array_equal(board.labels, low)
    assert np.array_equal(board.fractions(2), [0.5, 0.5])


def test_image_gives_resolution_and_fractions():
    image = make_microstructure(LABELS, None, 4)
    assert image.resolution == 6
    assert image.largest_fraction is None
    np.testing.assert_allclose(image.fractions(4), [1 / 3, 1 / 3, 1 / 3, 0.0])


def test_advice_for_a_rectangle_is_right():
    whole = np.tile(LABELS[:4], (3, 2))
    assert make_microstructure(whole, None, 3).resolution == 12
    assert make_microstructure(LABELS[:4][:4, :4], None, 3).resolution == 4


def test_volumes_are_refined_along_every_axis():
    volume = np.arange(64).reshape(4, 4, 4) % 3
    coarse, fine = make_microstructure(volume, None, 3), make_microstructure(volume, 8, 3)
    assert (coarse.ndim, fine.ndim, fine.resolution) == (3, 3, 8)
    for corner in np.ndindex(2, 2, 2):
        assert np.array_equal(fine.labels[tuple(slice(c, None, 2) for c in corner)], volume)
    np.testing.assert_array_equal(fine.fractions(3), coarse.fractions(3))


def test_image_may_be_refined_by_whole_factors():
    fine = make_microstructure(LABELS, 12, 3)
    assert np.array_equal(fine.labels[::2, ::2], LABELS)
    assert np.array_equal(fine.labels[1::2, 1::2], LABELS)


@pytest.mark.parametrize(
    ("microstructure", "resolution", "nphase", "text"),
    [
        ("cylinder", None, 2, "did you mean 'cylinders'"),
        ("foam", None, 2, "must be one of laminate, cylinders, checkerboard"),
        ("laminate", -32, 2, "resolution must be an even number from 4 to 1024, got -32"),
        ("laminate", 33, 2, "even number"),
        ("laminate", 32.5, 2, "even number"),
        ("laminate", 2, 2, "from 4"),
        ("laminate", None, 3, "must have 2 phases, got 3"),
        (LABELS, None, 2, "below 2, the number of phases, got 2"),
        (LABELS - 1, None, 3, "from 0 on, got -1"),
        (LABELS + 0.5, None, 3, "whole phase numbers"),
        (np.where(LABELS == 1, np.nan, LABELS), None, 3, "whole phase numbers"),
        (LABELS[:4], None, 3, r"got shape \(4, 6\); crop it to image\[:4, :4\], or.* \(3, 2\)\) to 12"),
        (LABELS[None], None, 3, "equal sides"),
        (LABELS[0], None, 3, "a square or a cube, got shape"),
        (LABELS[:0, :0], None, 3, "a square or a cube, got shape"),
        (np.zeros((4, 4, 4), int), 512, 2, "even number from 4 to 256, got 512"),
        (LABELS[:5, :5], None, 3, "even number"),
        (LABELS, 8, 3, "multiple of the 6 pixels"),
    ],
)
def test_what_does_not_fit_is_named(microstructure, resolution, nphase, text):
    with pytest.raises(ConfigError, match=text):
        make_microstructure(microstructure, resolution, nphase)


def write(folder, name, labels):
    """Save labels in the format that the name asks for."""
    if name.endswith(".npy"):
        np.save(folder / name, labels)
    elif ":" in name:
        file_name, _, dataset = name.partition(":")
        with h5py.File(folder / file_name, "w") as file:
            file[dataset] = labels
    else:
        Image.fromarray(labels.astype(np.uint8)).save(folder / name)


@pytest.mark.parametrize("name", ["a.npy", "a.h5:/group/labels", "a.tif", "a.tiff", "a.png", "a.bmp"])
def test_images_are_read_as_written(tmp_path, name):
    write(tmp_path, name, LABELS)
    assert np.array_equal(read_labels(tmp_path, name), LABELS)


@pytest.mark.parametrize("name", ["v.npy", "v.h5:/labels", "v.tif"])
def test_volumes_are_read_as_written(tmp_path, name):
    volume = np.arange(24).reshape(2, 3, 4) % 5
    if name.endswith(".tif"):
        pages = [Image.fromarray(page.astype(np.uint8)) for page in volume]
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    else:
        write(tmp_path, name, volume)
    assert np.array_equal(read_labels(tmp_path, name), volume)


def test_colours_are_no_phase_numbers(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="3 colours a pixel; grey levels are the phase numbers"):
        read_labels(tmp_path, "a.png")


def test_image_names_may_be_absolute(tmp_path):
    write(tmp_path, "a.npy", LABELS[None])  # a stack of one image is an image
    assert np.array_equal(read_labels("elsewhere", str(tmp_path / "a.npy")), LABELS)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("none.npy", None, "must be a file that exists"),
        ("a.jpg", b"x", r"must be one of .npy, .tif"),
        ("a.npy", b"not an array", "must be readable"),
        ("a.npy", b"", "must be readable"),
        ("a.png", b"not a picture", "must be readable"),
        ("a.tif", b"II*\0", "must be readable"),
        ("a.h5:/x", b"not HDF5", "must be readable"),
    ],
)
def test_unreadable_images_are_one_clear_line(tmp_path, name, content, text):
    if content is not None:
        (tmp_path / name.partition(":")[0]).write_bytes(content)
    with pytest.raises(ConfigError, match=text) as caught:
        read_labels(tmp_path, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.h5", "a.h5:/group", "a.h5:/other"])
def test_a_wrong_dataset_is_answered_with_those_there_are(tmp_path, name):
    write(tmp_path, "a.h5:/group/labels", LABELS)
    with pytest.raises(ConfigError, match="it holds /group/labels"):
        read_labels(tmp_path, name)


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ConfigError, match="must be readable"):
        read_labels(tmp_path, "a.npy")
