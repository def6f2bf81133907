"""Supervisors start and stop instances: one contract, several ways."""
