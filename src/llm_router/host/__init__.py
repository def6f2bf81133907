"""The host does: every await on the machine."""
