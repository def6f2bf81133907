"""The core decides: pure values in, pure values out; no await, clock, randomness or I/O."""
