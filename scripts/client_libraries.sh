#!/usr/bin/env bash
# Sets up ./.venv-clients with the heavy client libraries of the tests marked `clients` (about 400 MB, two minutes).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x .venv-clients/bin/python ] || python3 -m venv .venv-clients
.venv-clients/bin/python -m pip install -q --disable-pip-version-check --upgrade "langchain-openai>=1.0" "litellm>=1.83"
echo "now: .venv/bin/python -m pytest -m clients"
