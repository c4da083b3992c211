"""The built Python client on `sys.path`."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.built_client import built, installed


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the client is installed."""
    return installed(wheel, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def client_package(site: Path) -> Iterator[Any]:
    """The package `duecall_client`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield importlib.import_module("duecall_client")
