"""Where the repository and the real data outside of it lie."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("DEBATE_RL_SHARED", ROOT.parent / "shared"))
