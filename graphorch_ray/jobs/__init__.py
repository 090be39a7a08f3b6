"""Ray jobs: a run that goes to a cluster, and stays there when whoever sent it has gone.

Needs ``ray[default]``, here and on the cluster (`pip install 'graphorch-ray[jobs]'`).

Example:
    ```python
    from graphorch_ray import jobs

    job = jobs.submit(
        ["run", "flow:graph", "--input", "state.json"],
        address="http://10.0.0.1:8265",
        working_dir=".",
    )
    print(job.result()["state"]["messages"])
    ```
"""

from .handle import JobHandle, attach
from .submitting import submit

__all__ = ["JobHandle", "attach", "submit"]
