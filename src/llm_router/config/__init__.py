"""The configuration: text in, values out, or every mistake with its place. Pure; files are read elsewhere."""
