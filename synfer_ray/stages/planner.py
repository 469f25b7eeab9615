"""The first stage: plan indices become plan rows."""

from dataclasses import asdict, dataclass

import pyarrow as pa

from synfer_ray.plan import Plan, plan_row
from synfer_ray.stages.sample_rows import sample_rows


@dataclass(frozen=True)
class Planner:
    """A stage without state: a table with the column `index` in, the planned rows out."""

    plan: Plan

    def __call__(self, table: pa.Table) -> pa.Table:
        """Plans the rows."""
        rows = [asdict(plan_row(self.plan, index)) for index in table["index"].to_pylist()]
        return sample_rows(rows, self.plan.config.voters)
