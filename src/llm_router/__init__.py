"""One OpenAI-compatible address in front of a shelf of local models."""

__version__ = "0.1.0"
