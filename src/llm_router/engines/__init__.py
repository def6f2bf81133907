"""The engines describe: what to run, what to ask, how to read the answer. Pure: no I/O."""
