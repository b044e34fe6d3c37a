"""MLPerf's scenarios: its own load generator (`mlcommons-loadgen`) asks, a Runner answers, and LoadGen says whether the run is valid.

`scenario` runs one in a process of its own. SingleStream: one query after another, of one sample. MultiStream: of eight. Offline: all
samples in one query, batched as one likes. MLCommons, "MLPerf Inference Rules", section 3 (Scenarios); Reddi et al. 2020, arXiv:1911.02549.
"""

from edgewise.measure.scenarios.rules import SCENARIOS, SERVER, Rules, batch, caveat, rules
from edgewise.measure.scenarios.running import ScenarioRun, require, scenario
from edgewise.measure.scenarios.summary import Summary, parse

__all__ = ["SCENARIOS", "SERVER", "Rules", "ScenarioRun", "Summary", "batch", "caveat", "parse", "require", "rules", "scenario"]
