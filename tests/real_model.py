"""The real model of slow tests, where it has been fetched."""

import pytest

from debate_rl.data.models import model_path
from debate_rl.errors import UserError

NAME = "smollm2-135m"


def model_folder():
    """Folder of SmolLM2-135M; without it the test is skipped."""
    try:
        return model_path(NAME)
    except UserError as error:
        pytest.skip(str(error))
