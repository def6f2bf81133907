"""``python -m llm_router`` is ``llm-router``."""

from llm_router.doors.cli.main import main

main()
