"""What a command costs before it does anything. Prints a table, never fails.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_import
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

from tests.conftest import ROOT

REPEATS = 5
COMMANDS = {
    "debate-rl --help": "import sys; sys.argv = ['debate-rl', '--help']; from debate_rl.cli.main import main; main()",
    "import debate_rl": "import debate_rl",
    "import debate_rl.arena.tournament": "import debate_rl.arena.tournament",
    "import torch (for comparison)": "import torch",
}


def cost(code: str) -> tuple[float, float]:
    """Least seconds and CPU seconds of a process that runs some code, of a few."""
    found = []
    for _ in range(REPEATS):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append((time.perf_counter() - start, spent))
    return min(one[0] for one in found), min(one[1] for one in found)


def main() -> None:
    """Print the table."""
    print(f"{f'best of {REPEATS}':<40}{'seconds':>9}{'CPU s':>8}{'bar, s':>9}")
    for name, code in COMMANDS.items():
        wall, spent = cost(code)
        print(f"{name:<40}{wall:>9.2f}{spent:>8.2f}{'0.5' if name.endswith('--help') else '-':>9}", flush=True)


if __name__ == "__main__":
    main()
