"""Headrace: an image service that moves the bytes without touching them."""

__version__ = "0.1.0"
