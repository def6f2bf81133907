"""Model files: bytes in, values out. No I/O happens here."""
