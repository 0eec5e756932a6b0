"""What W&B wrote for the runs of a folder, by its own reader."""

import json
import subprocess
import sys
from pathlib import Path


class OfflineRun:
    """One offline run: its records, and the files beside them.

    Args:
        folder: `wandb/offline-run-*`.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        self.records = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]

    def of(self, kind):
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def run(self):
        return self.of("run")[0]

    @property
    def history(self):
        return [record["item"] for record in self.of("history")]

    def series(self, key, axis):
        """(step, value) of a number, in the order of logging."""
        return [(item[axis], item[key]) for item in self.history if key in item]

    @property
    def summary(self):
        values = {}
        for record in self.of("summary"):
            values.update(record.get("update", {}))
        return values

    @property
    def artifacts(self):
        """Type, metadata and file names of each artifact that is not a table of W&B's own, by name."""
        found = {}
        for record in self.of("artifact"):
            if not record["name"].startswith("run-"):
                metadata = record.get("metadata", "{}")
                files = [entry["path"] for entry in record["manifest"]["contents"]]
                found[record["name"]] = (record["type"], json.loads(metadata), files)
        return found

    def table(self, key):
        """Rows of a table, a dict each; what W&B shows is the copy in the table's artifact."""
        name = f"run-{self.run['run_id']}-{key.replace('/', '')}"
        (record,) = [record for record in self.of("artifact") if record["name"].startswith(name)]
        files = {entry["path"]: entry["local_path"] for entry in record["manifest"]["contents"]}
        table = json.loads(Path(files[f"{key}.table.json"]).read_text())
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]], files

    def media(self, key):
        """Text of every file of a media key, in the order of logging."""
        return [
            (self.folder / "files" / item[f"{key}.path"]).read_text() for item in self.history if f"{key}.path" in item
        ]


def offline_runs(folder):
    """The offline runs below a folder, oldest first."""
    found = sorted(Path(folder).glob("**/wandb/offline-run-*"), key=lambda path: path.name)
    return [OfflineRun(path) for path in found]
