"""Figures, pages and progress as a person meets them."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from spoco_zoo.demo.synth import crowded_cells
from spoco_zoo.report import (
    Figure,
    Section,
    curves,
    embedding_rgb,
    grey_rgb,
    html_page,
    label_rgb,
    overlay,
    preview,
    progress,
)


def picture(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.mark.parametrize("shape", [(50, 70), (9, 50, 70)])
def test_preview_shows_four_panels(tmp_path, shape):
    image, labels = crowded_cells(shape, 0, diameter=12)
    embedding = np.random.default_rng(0).normal(size=(labels.max() + 1, 8))[labels]
    path = tmp_path / "preview.png"
    preview(image[None], labels, np.moveaxis(embedding, -1, 0), labels, path)
    pixels = picture(path)
    height, width = pixels.shape[:2]
    assert width > 3 * height
    quarters = np.array_split(pixels[height // 4 :], 4, axis=1)
    colourful = [np.ptp(quarter, axis=2).mean() for quarter in quarters]
    # Grey, grey with coloured outlines, and two panels full of colour.
    assert colourful[0] < 1 < colourful[1] < min(colourful[2:])
    assert [p.name for p in tmp_path.iterdir()] == ["preview.png"]


def test_preview_showed_a_slice_without_any_object_of_a_sparse_truth(tmp_path):
    truth = np.zeros((9, 50, 200), np.int32)
    truth[1, 10:40, 20:60], truth[1, 10:40, 100:160], truth[3, 10:20, 20:30] = 1, 2, 3
    image = np.random.default_rng(0).normal(size=truth.shape)
    preview(image, truth, np.ones((8, *truth.shape)), truth, tmp_path / "preview.png")
    pixels = picture(tmp_path / "preview.png")
    panels = np.array_split(pixels[pixels.shape[0] // 4 :], 4, axis=1)
    assert np.ptp(panels[1], axis=2).mean() > 1
    assert np.ptp(panels[3], axis=2).mean() > 10


def test_overlay_takes_the_middle_of_a_large_image(tmp_path):
    labels = np.zeros((64, 5000), np.int32)
    labels[20:40, 2480:2520] = 3
    path = tmp_path / "overlay.png"
    overlay(np.zeros((2, 64, 5000), np.float32), labels, path)
    assert np.ptp(picture(path), axis=2).max() > 100


@pytest.mark.parametrize("shape", [(2000, 1), (1, 2000), (900, 16)])
def test_the_picture_of_a_strip_was_taller_than_any_memory(tmp_path, shape):
    path = tmp_path / "overlay.png"
    overlay(np.zeros((1, *shape), np.float32), np.ones(shape, np.int32), path)
    assert max(picture(path).shape) < 2000


def test_curves_leave_out_what_is_not_finite(tmp_path):
    rows = [
        {"step": 1, "seconds": 1, "learning_rate": 0.1, "pull": 2.0, "total": float("nan")},
        {"step": 2, "seconds": 2, "learning_rate": 0.1, "pull": 1.0, "total": 1.0, "val_ap50": 0.5},
    ]
    curves(rows, tmp_path / "curves.png")
    curves([], tmp_path / "none.png")
    full, empty = picture(tmp_path / "curves.png"), picture(tmp_path / "none.png")
    assert np.ptp(full, axis=2).max() > 50
    assert np.ptp(empty, axis=2).max() < 50


def test_equal_embeddings_have_equal_colours():
    labels = np.arange(12).reshape(3, 4) % 5
    vectors = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    colours = embedding_rgb(np.moveaxis(vectors[labels], -1, 0))
    assert colours.shape == (3, 4, 3)
    assert colours.dtype == np.uint8
    by_label = [np.unique(colours[labels == i], axis=0) for i in range(5)]
    assert all(len(found) == 1 for found in by_label)
    assert len(np.unique(np.concatenate(by_label), axis=0)) == 5


def test_embeddings_of_few_dimensions_and_constant_ones():
    line = np.linspace(0, 1, 20, dtype=np.float32).reshape(1, 4, 5)
    assert embedding_rgb(line)[..., 1:].max() == 0
    assert embedding_rgb(line)[..., 0].max() == 255
    assert embedding_rgb(np.ones((8, 4, 5), np.float32)).max() == 0


def test_label_colours_depend_on_the_id_alone():
    one = label_rgb(np.array([0, 1, 2, 3, -1]))
    assert one[[0, 4]].max() == 0
    assert one[1:4].max(axis=1).min() > 150
    assert np.array_equal(label_rgb(np.array([3, 3, 9]))[0], one[3])
    shades = label_rgb(np.arange(1, 200)).astype(int)
    assert abs(np.diff(shades, axis=0)).sum(axis=1).min() > 60


def test_grey_spans_the_range_and_a_constant_image_is_black():
    grey = grey_rgb(np.arange(1000, dtype=np.uint16).reshape(20, 50))
    assert (grey.min(), grey.max()) == (0, 255)
    assert grey_rgb(np.full((4, 4), 7.0)).max() == 0


def test_a_page_needs_nothing_but_itself(tmp_path):
    overlay(np.zeros((8, 8)), np.ones((8, 8), int), tmp_path / "a.png")
    page = tmp_path / "report.html"
    figure = Figure(tmp_path / "a.png", 'Labels of "cells" <1>')
    sections = [
        Section("Scores & more", ("a < b",), (("name", "AP"), ("<img src=x onerror=y>", "0.5"))),
        Section("Command", code="spoco-zoo segment 'a&b'", figures=(figure,)),
    ]
    html_page(page, "<script>alert(1)</script>", sections, [figure])
    text = page.read_text()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert text.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "://" not in text
    for escaped in ("Scores &amp; more", "a &lt; b", "a&amp;b", "&quot;cells&quot; &lt;1&gt;"):
        assert escaped in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def plain_lines(interval, work):
    out = io.StringIO()
    with progress(Console(file=out, width=60), interval=interval) as display:
        work(display)
    return out.getvalue().splitlines()


def test_without_a_terminal_there_are_plain_lines():
    def work(display):
        for done in range(4):
            display.update("blocks", done, 3, "[2 failed]")
        display.note("a line that is longer than the console is wide must not be broken in two")

    lines = plain_lines(0, work)
    assert lines[0] == "blocks 0/3, [2 failed]"
    assert re.fullmatch(r"blocks 1/3, \[2 failed\], 0:\d\d:\d\d left", lines[1])
    assert lines[3] == "blocks 3/3, [2 failed]"
    assert lines[4].endswith("broken in two")
    assert len(lines) == 5


def test_plain_lines_are_few():
    def work(display):
        for phase in ("blocks", "faces"):
            for done in range(1001):
                display.update(phase, done, 1000)

    lines = plain_lines(3600, work)
    assert lines == ["blocks 0/1000", "blocks 1000/1000", "faces 0/1000", "faces 1000/1000"]


def test_a_terminal_was_redrawn_for_every_item(monkeypatch):
    drawn = []
    monkeypatch.setattr(Progress, "refresh", lambda bars: drawn.append(bars))
    with progress(Console(file=io.StringIO(), force_terminal=True)) as display:
        for done in range(20_001):
            display.update("blocks", done, 20_000)
    assert len(drawn) < 2000


def test_a_terminal_gets_a_bar_for_each_phase():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with progress(console) as display:
        display.update("blocks [1]", 1, 4, "3 workers")
        display.update("blocks [1]", 4, 4)
        display.update("faces", 0, 2)
        display.note("seam [audit]")
    text = out.getvalue()
    for expected in ("blocks [1]", "4/4", "faces", "0/2", "seam [audit]", "3 workers"):
        assert expected in text
