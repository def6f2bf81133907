"""Worlds on virtual time: traces through the scheduler, and other policies to compare it with. Pure."""
