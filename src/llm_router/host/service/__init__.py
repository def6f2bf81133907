"""Existing installations: their files, found, read and edited."""
