"""What GitHub runs: linters find nothing, and each command is one of the Makefile's."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RUNNERS = {"ubuntu-latest"}
LINTERS = {
    "check-jsonschema": ["--builtin-schema", "vendor.github-workflows"],
    "forms": ["--builtin-schema", "vendor.github-issue-forms"],
    # It only warns of an expression that it cannot read.
    "zizmor": [
        *("--offline", "--quiet", "--strict-collection"),
        *("--config", ROOT / ".github" / "zizmor.yml"),
    ],
}


def lint(linter, path):
    name = linter if linter != "forms" else "check-jsonschema"
    command = [Path(sys.executable).with_name(name), *LINTERS[linter], path]
    done = subprocess.run(command, capture_output=True, text=True)
    return done if done.returncode or done.stderr else None


def undefined(path):
    """What jobs refer to and nothing defines: no schema knows these names."""
    jobs = yaml.safe_load(path.read_text())["jobs"]
    missing = []
    for job in jobs.values():
        matrix = job.get("strategy", {}).get("matrix", {})
        rows = [matrix, *matrix.get("include", [])]
        needs = job.get("needs", [])
        names = {
            "matrix": {key for row in rows for key in row},
            "needs": {needs} if isinstance(needs, str) else set(needs),
            "steps": {step.get("id") for step in job["steps"]},
        }
        missing += names["needs"] - set(jobs)
        missing += {job["runs-on"]} - RUNNERS
        text = yaml.dump(job, width=1000)
        for part in re.findall(r"\$\{\{.*?\}\}|\bif: .*", text):
            for context, name in re.findall(r"(?<![\w.])(\w+)\.([\w-]+)", part):
                if context != "github" and name not in names.get(context, ()):
                    missing.append(f"{context}.{name}")
    return missing


CHECKS = {name: partial(lint, name) for name in ("check-jsonschema", "zizmor")}
CHECKS["names"] = undefined
MISTAKES = [
    ("check-jsonschema", "test", "runs-on", "run-on"),
    ("check-jsonschema", "test", "pull_request", "pul_request"),
    ("check-jsonschema", "weekly", "issues: write", "issue: write"),
    ("zizmor", "test", "persist-credentials: false", ""),
    ("zizmor", "test", "actions/setup-python", "someone/setup-python"),
    ("zizmor", "test", "contents: read", "contents: all"),
    ("zizmor", "test", "make book", "echo ${{ github.head_ref }}"),
    ("zizmor", "weekly", "failure()", "failed()"),
    ("names", "test", "matrix.python", "matrix.pythons"),
    ("names", "test", "if: matrix.jax", "if: matrx.jax"),
    ("names", "test", "ubuntu-latest", "ubuntu-newest"),
    ("names", "weekly", "needs: [newest", "needs: [newst"),
    ("names", "pages", "steps.deploy", "steps.deplo"),
]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
@pytest.mark.parametrize("check", CHECKS)
def test_a_workflow_has_no_mistakes(check, path):
    assert not CHECKS[check](path)


@pytest.mark.parametrize("check, stem, right, wrong", MISTAKES)
def test_a_mistake_is_found(check, stem, right, wrong, tmp_path):
    text = (ROOT / ".github/workflows" / f"{stem}.yml").read_text()
    assert right in text
    path = tmp_path / "broken.yml"
    path.write_text(text.replace(right, wrong))
    assert CHECKS[check](path)


def test_a_form_has_no_mistakes(tmp_path):
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert not lint("forms", path)
        broken = tmp_path / path.name
        broken.write_text(
            path.read_text().replace("type: input", "type: inputs")
        )
        assert lint("forms", broken)


def test_workflows_run_what_the_makefile_has():
    targets = re.findall(r"^([\w]+):", (ROOT / "Makefile").read_text(), re.M)
    for path in WORKFLOWS:
        asked = re.findall(r"\bmake (.\w*)", path.read_text())
        assert asked and set(asked) <= set(targets), path
