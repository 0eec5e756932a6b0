"""What a training changes and puts back is tested with a real one, in tests/trainers/common/test_job.py."""

import subprocess
import sys


def test_models_that_hold_each_other_are_freed_and_imports_are_not_walked():
    script = (
        "import gc, weakref\n"
        "from debate_rl.trainers.common.state import freeze_imports, kept_global_state\n"
        "freeze_imports(); freeze_imports()\n"
        "assert gc.get_freeze_count() > 100_000 > len(gc.get_objects())\n"
        "class Model: pass\n"
        "with kept_global_state():\n"
        "    model = Model(); model.trainer = Model(); model.trainer.model = model\n"
        "    there = weakref.ref(model); del model\n"
        "assert there() is None\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
