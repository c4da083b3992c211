"""Files for contributors: paths exist, and CI and pre-commit run the commands of the Makefile."""

import os
import re
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.sources import PRODUCT, ROOT
from tests.conftest import _LONG_FILES, _ONE_AFTER_THE_OTHER
from tests.docs.pages import read, section

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/operations.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
CHECKLISTS = sorted(path.stem for path in (ROOT / "docs" / "how-to").glob("add-a-*.md"))
MOST_PATHS = 3
A_PATH = re.compile(r"(?:[\w.-]+/)+[\w.-]*|[\w.-]+\.(?:md|py|toml|yml|txt|json)|Procfile|Makefile|\.env\.example")
NEW_IN_THE_EXAMPLES = {"acme.py", "acme_codes.py"}
NOT_IN_THE_REPOSITORY = re.compile(r"\.duecall/|\.venv/|docs/[\w/]*$|run\.json")


def paths(text: str) -> list[str]:
    """List the paths of the repository in code spans."""
    named = [each for each in re.findall(r"`([^`\n]+)`", text) if A_PATH.fullmatch(each)]
    return [each for each in named if each not in NEW_IN_THE_EXAMPLES and not NOT_IN_THE_REPOSITORY.match(each)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_paths_in_pages_exist(path: Path) -> None:
    missing = [each for each in paths(read(path)) if not ((ROOT / each).exists() or is_migration(each))]
    assert missing == []


def test_files_of_tests_that_start_first_exist() -> None:
    names = {*_LONG_FILES, *chain.from_iterable(_ONE_AFTER_THE_OTHER.values())}
    assert [name for name in names if len(list((ROOT / "tests").rglob(name))) != 1] == []


def is_migration(name: str) -> bool:
    return (ROOT / "scheduler" / "persistence" / "migrations" / "versions" / name).exists()


@pytest.mark.parametrize("name", CHECKLISTS)
def test_checklist_has_an_example_and_names_files(name: str) -> None:
    text = read(f"docs/how-to/{name}.md")
    assert "\nExample: " in text
    assert "\nCheck: `make check && make test ARGS=" in text
    assert len(paths(text)) > 5
    assert f"(docs/how-to/{name}.md)" in read("CONTRIBUTING.md")


def test_tests_named_by_a_check_exist() -> None:
    for name in CHECKLISTS:
        checks = re.findall(r'^Check: .*make test ARGS="([^"]+)"', read(f"docs/how-to/{name}.md"), re.MULTILINE)
        [arguments] = checks
        assert [each for each in arguments.split() if not (ROOT / each.partition("::")[0]).exists()] == []


def test_questions_are_answered_by_few_existing_paths() -> None:
    questions = section(read("CONTRIBUTING.md"), "Questions")
    answers = re.findall(r"^\| (\d+) \| .+\? \| (.+) \|$", questions, re.MULTILINE)
    assert [int(number) for number, _ in answers] == list(range(1, 15))
    for number, answer in answers:
        assert 1 <= len(paths(answer)) <= MOST_PATHS, number
        for name, inside in re.findall(r"`([\w/.]+\.py)` \(`(\w+)`\)", answer):
            assert inside in read(name), answer


def test_product_uses_each_word_of_the_glossary() -> None:
    words = re.findall(r"^\| ([\w -]+(?:, [\w -]+)*) \| (?!meaning)", read("docs/glossary.md"), re.MULTILINE)
    assert len(words) > 40
    product = " ".join(re.sub(r"[_\s-]+", " ", read(path)).lower() for path in PRODUCT)
    each = [word for cell in words for word in cell.lower().replace("-", " ").split(", ")]
    assert [word for word in each if word not in product] == []


# ---- the same commands everywhere


def recipes() -> dict[str, list[str]]:
    """List the commands of each target of the Makefile, as make runs them."""
    made: dict[str, list[str]] = {}
    target = ""
    for line in read("Makefile").splitlines():
        if match := re.match(r"([a-z-]+):(?!=)", line):
            target = match[1]
            made[target] = []
        elif line.startswith("\t") and target:
            command = line.strip().removeprefix("@").replace("$(PY)", ".venv/bin/python")
            made[target].append(command.replace("$(VENV)", ".venv"))
        elif not line.startswith("\t"):
            target = ""
    return made


def workflow() -> dict[str, Any]:
    return dict(yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["ci"])


def of_ci() -> list[str]:
    """List the commands of the CI script. Its second Python is another job of the workflow."""
    lines = [re.sub(r"^(beside |\.ci/as-user python3\.13 )", "", line) for line in read(".ci/run").splitlines()]
    return [line for line in lines if line.startswith("make ")]


def test_pre_commit_runs_the_commands_of_make_check() -> None:
    [local] = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert local["repo"] == "local"
    assert [hook["entry"] for hook in local["hooks"]] == recipes()["check"]
    assert all((hook["language"], hook["pass_filenames"]) == ("system", False) for hook in local["hooks"])


def test_workflow_runs_the_commands_of_the_ci_script() -> None:
    runs = [step["run"] for step in workflow()["steps"] if "run" in step]
    steps = [re.sub(r"^(sudo (--preserve-env=CI )?|\.ci/as-user \$PYTHON )", "", each) for each in runs]
    assert steps[0] == of_ci()[0] == "make debian"
    # The script runs some of them side by side.
    assert sorted(each for each in steps if each.startswith("make ")) == sorted(of_ci())
    assert {each.split()[1] for each in of_ci()} <= set(recipes())
    for script in (each for each in steps if not each.startswith("make ")):
        assert os.access(ROOT / script, os.X_OK), script


def test_workflow_tests_the_oldest_and_newest_versions() -> None:
    matrix = workflow()["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.13"]
    servers = {(each["postgres"], each["redis"]) for each in matrix["servers"]}
    assert servers == {("18", "valkey-9"), ("15", "redis-6.2")}
    assert 'requires-python = ">=3.11"' in read("pyproject.toml")
    assert "PostgreSQL >= 15 and Redis >= 6.2" in read("docs/how-to/deploy.md")
    assert "python:3.13" in read("Dockerfile")


@pytest.mark.parametrize("script", ["run", "as-user", "oldest-servers"])
def test_script_of_ci_is_valid_shell(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / ".ci" / script], check=True)
    assert os.access(ROOT / ".ci" / script, os.X_OK)


def test_ci_runs_both_versions_of_python_as_an_ordinary_user() -> None:
    script = read(".ci/run")
    assert ".ci/as-user python3.13 make test\n" in script
    [parts] = re.findall(r'^\.ci/as-user python3\.11 make test ARGS="(.+)"$', script, re.MULTILINE)
    assert {"tests/carriers", "tests/workers", "tests/timing", "tests/webhooks", "tests/wire"} <= set(parts.split())
    assert {"tests/test_imports.py", "tests/acceptance/test_one_call.py"} <= set(parts.split())
    assert [each for each in parts.split() if not (ROOT / each.partition("::")[0]).exists()] == []
    assert "ulimit -n 1024" in read(".ci/as-user")


def test_ci_fails_if_a_command_beside_others_failed(tmp_path: Path) -> None:
    lines = read(".ci/run").splitlines()
    [*functions] = [line for line in lines if line.startswith(("beside()", "ended()"))]
    assert lines.count("ended") == sum(line.startswith("beside ") for line in lines)
    script = "\n".join(["set -euo pipefail", f"log={tmp_path}/log", *functions])
    for status, output in ((0, "said and ended"), (3, "said")):
        run = f"{script}\nbeside sh -c 'echo said; exit {status}'\nended\necho and ended"
        done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.split()) == (status, output.split())


def test_ci_runs_the_containers_as_root_with_all_history() -> None:
    assert "beside make containers" in read(".ci/run").splitlines()
    assert "docker.io" in " ".join(recipes()["debian"])
    [checkout] = [step for step in workflow()["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["fetch-depth"] == 0


def test_every_target_has_a_short_help() -> None:
    helps = dict(re.findall(r"^([a-z-]+):.*?## (.+)$", read("Makefile"), re.MULTILINE))
    assert set(helps) == set(recipes())
    assert {name for name, text in helps.items() if len(text) > 100} == set()


def test_environment_that_could_not_be_made_is_begun_again(tmp_path: Path) -> None:
    """Without Debian's python3-venv, `python3 -m venv` leaves the interpreter behind, and no pip."""
    (tmp_path / "Makefile").write_text(read("Makefile"))
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\n[ "$2" = venv ] || exit 0\nmkdir -p "$3/bin"\ntouch "$3/bin/python"\nexit 1\n')
    python.chmod(0o755)
    made = subprocess.run(
        ["make", ".venv/bin/python", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, check=False
    )
    assert made.returncode != 0
    assert not (tmp_path / ".venv").exists()


def test_templates_point_to_the_rules() -> None:
    assert "make check" in read(".github/pull_request_template.md")
    assert "SECURITY.md" in read(".github/ISSUE_TEMPLATE/bug.md")
    for template in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"):
        assert {"name", "about", "labels"} <= set(yaml.safe_load(read(template).split("---\n")[1]))
