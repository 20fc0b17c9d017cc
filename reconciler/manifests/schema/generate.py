"""Writes schemas/*.json from the models: `python -m reconciler.manifests.schema.generate [DIRECTORY]`.

What it is: JSON Schema draft 2020-12 for editors and CI of the people who write manifests. A test compares the files with this.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from reconciler.manifests.schema.registry import KINDS


def schema_of(kind: str) -> dict[str, Any]:
    body = KINDS[kind].model.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind, **{k: v for k, v in body.items() if k != "title"}}


def render(kind: str) -> str:
    return json.dumps(schema_of(kind), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def file_name(kind: str) -> str:
    return f"{kind.lower()}.json"


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (directory / file_name(kind)).write_text(render(kind), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("schemas"))
