"""Tiny random models of many architectures, from the zoo that the architectures page measures."""

from __future__ import annotations

from pathlib import Path

from benchmarks.architectures.zoo import ARCHITECTURES, Architecture, save

BY_TITLE = {one.title: one for one in ARCHITECTURES}


def architecture(title: str) -> Architecture:
    return BY_TITLE[title]


def save_tiny(title: str, directory: Path) -> str:
    """Write the model of that title; returns the folder's name."""
    return str(save(BY_TITLE[title], directory))
