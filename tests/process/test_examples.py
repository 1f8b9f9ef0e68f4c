"""The Python that README.md and protocol/CLIENTS.md show runs, word for word, on a demo."""

import re
import subprocess
import sys
from itertools import islice

import pytest

from tests.process.fenced import ROOT, blocks

EXAMPLES = [
    (file, number, body)
    for file in ("README.md", "protocol/CLIENTS.md")
    for number, body in enumerate(body for info, body in blocks((ROOT / file).read_text()) if info == "python")
]


@pytest.mark.parametrize(
    ("file", "number", "body"), EXAMPLES, ids=lambda each: str(each) if len(str(each)) < 40 else ""
)
def test_an_example_prints_prices(file: str, number: int, body: str, demo_port: int) -> None:
    assert "ws://localhost:8000/ws" in body
    code = body.replace("localhost:8000", f"127.0.0.1:{demo_port}")
    with subprocess.Popen([sys.executable, "-u", "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = list(islice(process.stdout, 4))
        finally:
            process.kill()
    assert len(lines) == 4
    assert any(re.search(r"\d+\.\d+", line) for line in lines)


def test_both_documents_have_examples() -> None:
    assert {file for file, _, _ in EXAMPLES} == {"README.md", "protocol/CLIENTS.md"}
