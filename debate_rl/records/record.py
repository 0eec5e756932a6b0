"""Records: frozen typed values whose form in memory is their line in a file; their hash and their errors."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    import pandas as pd


class Record(BaseModel):
    """Base class of every record and config: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Printed(Record):
    """A result that prints as a short table, in a notebook as an HTML one, and becomes a data frame.

    A subclass has `__str__` and `to_frame`.
    """

    def to_frame(self) -> pd.DataFrame:
        """The result as a data frame."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """The same as `str`: the fields of a whole tournament would fill the screen."""
        return str(self)

    def _repr_html_(self) -> str:
        """The frame as a table; hostile text stays text."""
        return self.to_frame().to_html(index=False, na_rep="-", float_format="{:.3f}".format, border=0)


R = TypeVar("R", bound=BaseModel)

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """Hash of a JSON-like value: 16 hexadecimal digits of SHA-256 over its canonical JSON."""
    # Keys are sorted and spaces left out: names in stores and logs must not depend on how a value was built.
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:16]


def explain(error: ValidationError) -> str:
    """Describe the first problem of a validation in a few words: where it is, and what is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
