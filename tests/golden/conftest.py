"""The small random models, built once for all golden tests."""

import pytest

from tests.golden.sections import Models


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("golden"))
