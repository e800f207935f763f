import pytest
from standins import recorded

from medarc_plugin import index
from medarc_plugin.index import Entry


@pytest.fixture(autouse=True)
def _clean(clean_environment: object) -> None:
    """Nothing here may depend on the machine."""


@pytest.fixture
def make_run(work, slurm):
    """Write a run of this project, and put it into the user's list."""

    def make(name="a", job_id="17", token=recorded.TOKEN, **options):
        run = recorded.make_run(work / "runs" / name, job_id, token=token, **options)
        if job_id is not None:
            index.add(
                Entry(
                    *(
                        str(run.run_dir),
                        "rl",
                        "reverse",
                        "slurm",
                        job_id,
                        None,
                        None,
                        token,
                        recorded.ago(hours=1),
                    ),
                    *(str(work), 2),
                )
            )
        return run

    return make


@pytest.fixture
def running(make_run, slurm):
    """A run of this project that has come to its 12th of 40 steps."""
    run = make_run("a")
    recorded.begin(run)
    recorded.write_state(run)
    slurm.set(jobs={"17": {"state": "RUNNING", "node": "node1", "comment": recorded.MARK}})
    return run
