"""What a training changes and puts back is tested with a real one, in tests/trainers/common/test_job.py."""

import gc
import weakref

from debate_rl.trainers.common.state import freeze_imports, kept_global_state
from tests import forked


class Model:
    """Something that others hold."""


def freeze_and_free():
    freeze_imports()
    freeze_imports()
    assert gc.get_freeze_count() > 100_000 > len(gc.get_objects())
    with kept_global_state():
        model = Model()
        model.trainer = Model()
        model.trainer.model = model
        there = weakref.ref(model)
        del model
    assert there() is None


def test_models_that_hold_each_other_are_freed_and_imports_are_not_walked():
    process = forked.SERVER.Process(target=freeze_and_free)
    process.start()
    process.join()
    assert process.exitcode == 0
