"""The doors speak: HTTP for clients, pages and commands for operators."""
