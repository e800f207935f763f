import pytest


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> None:
    """Nothing here may depend on the machine, but the sandbox, whose affair the machine is."""
    if not request.path.name.startswith("test_sandbox_"):
        request.getfixturevalue("clean_environment")
