"""Puts the router on a host as a service, and takes it away again: a plan of deeds, each with its way back."""
