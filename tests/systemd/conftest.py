"""What changes units is collected only inside the sandbox (see test_sandboxed.py)."""

import os

from support.systemd_sandbox import INSIDE

collect_ignore_glob = [] if os.environ.get(INSIDE) else ["inside/*"]
