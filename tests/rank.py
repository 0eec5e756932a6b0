"""One process of a crew, as a program: a run of rules instead of models, so that processes start fast.

python -m tests.rank CONFIG.yaml [DIES]: rank 1 kills itself when it has answered DIES requests.
"""

import os
import signal
import sys
import time

from debate_rl.config.tree import load_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.workers import join
from debate_rl.records import digest
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run


def scripted(told=None, local=0, dies=None):
    """Answers that depend on the request alone; each takes its time, so that all ranks take part."""

    def write(request):
        time.sleep(0.002)
        if dies is not None and len(engine.requests) > dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"the answer is {digest(request)[:3]}"

    engine = ScriptedEngine(write, lambda choice: [-1.0, -1.0 - int(digest(choice)[:2], 16) / 256])
    return engine


def main():
    config = load_config(sys.argv[1])
    dies = int(sys.argv[2]) if len(sys.argv) > 2 else None
    crew = join(lambda told, local: scripted(told, local, dies))
    own = scripted()
    run_stages(Run(config, own, crew=crew))
    members = {} if crew is None else {rank: crew.member(rank) for rank in range(1, crew.size)}
    print("answered", len(own.requests) + len(own.choices), {r: m and m.answered for r, m in members.items()})


if __name__ == "__main__":
    main()
