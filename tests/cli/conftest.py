import pytest


@pytest.fixture(autouse=True)
def _clean(clean_environment: object) -> None:
    """Nothing here may depend on the machine."""
