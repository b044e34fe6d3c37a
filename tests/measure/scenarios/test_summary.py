"""LoadGen 6.0.17's summaries as they were written, and older and broken ones."""

from __future__ import annotations

import pytest

from edgewise.errors import MeasurementFailed
from edgewise.measure.scenarios import parse

LINE = "================================================"
PARAMETERS = f"""
{LINE}
Test Parameters Used
{LINE}
samples_per_query : SAMPLES
target_qps : 500
target_latency (ns): 0
min_duration (ms): 300
min_query_count : 64

No warnings encountered during test.

No errors encountered during test.
"""
SINGLE = (
    f"""{LINE}
MLPerf Results Summary
{LINE}
SUT name : PyFastSUT
Scenario : SingleStream
Mode     : PerformanceOnly
90.0th percentile latency (ns) : 4397346
Result is : VALID
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
Early Stopping Result:
 * Processed at least 64 queries (117).
 * Would discard 3 highest latency queries.
 * Early stopping 90.0th percentile estimate: 5893746
 * Not enough queries processed for 99.0th percentile
 early stopping estimate (would need to process at
 least 662 total queries).

{LINE}
Additional Stats
{LINE}
QPS w/ loadgen overhead         : 384.71
QPS w/o loadgen overhead        : 386.65

Min latency (ns)                : 2066302
Max latency (ns)                : 12033350
Mean latency (ns)               : 2586340
50.00 percentile latency (ns)   : 2098336
90.00 percentile latency (ns)   : 4397346
99.90 percentile latency (ns)   : 12033350
"""
    + PARAMETERS
).replace("SAMPLES", "1")
MULTI = (
    f"""{LINE}
MLPerf Results Summary
{LINE}
SUT name : PyFastSUT
Scenario : MultiStream
Mode     : PerformanceOnly
99.0th percentile latency (ns) : 5864260
Result is : INVALID
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
Early Stopping Result:
 * Only processed 75 queries.
 * Need to process at least 662 queries for early stopping.

{LINE}
Additional Stats
{LINE}
Per-query latency:  
Min latency (ns)                : 2093751
Max latency (ns)                : 5864260
Mean latency (ns)               : 2500000
50.00 percentile latency (ns)   : 2111796
99.00 percentile latency (ns)   : 5864260
"""
    + PARAMETERS
).replace("SAMPLES", "8")
OFFLINE = (
    f"""{LINE}
MLPerf Results Summary
{LINE}
SUT name : PyFastSUT
Scenario : Offline
Mode     : PerformanceOnly
Samples per second: 320.626
Result is : INVALID
  Min duration satisfied : NO
  Min queries satisfied : Skipped
  Early stopping satisfied: Yes
Recommendations:
 * Increase expected QPS so the loadgen pre-generates a larger (coalesced) query.
 * The test exited early, before enough queries were issued.
   See the detailed log for why this may have occurred.

{LINE}
Additional Stats
{LINE}
Min latency (ns)                : 6478941
Max latency (ns)                : 84210393
Mean latency (ns)               : 43199387
50.00 percentile latency (ns)   : 44506930
"""
    + PARAMETERS.replace("No errors encountered during test.", "1 ERROR encountered. See detailed log.")
).replace("SAMPLES", "27")


def test_a_valid_run() -> None:
    found = parse(SINGLE)
    assert (found.scenario, found.valid, found.reasons, found.errors) == ("SingleStream", True, (), 0)
    assert found.checks == {"Min duration satisfied": "Yes", "Min queries satisfied": "Yes", "Early stopping satisfied": "Yes"}
    assert found.percentiles_ms == {"50": 2.098336, "90": 4.397346, "99.9": 12.03335}
    assert (found.mean_ms, found.min_ms, found.max_ms) == (2.58634, 2.066302, 12.03335)
    assert found.samples_per_second == 384.71
    assert found.parameters["min_duration (ms)"] == "300"
    assert found.parameters["samples_per_query"] == "1"


def test_too_few_queries() -> None:
    found = parse(MULTI)
    assert not found.valid
    assert found.reasons == (
        "Early stopping satisfied: NO",
        "Only processed 75 queries.",
        "Need to process at least 662 queries for early stopping.",
    )
    assert found.samples_per_second == 3200  # eight in the mean query's 2.5 ms


def test_too_short_and_with_an_error() -> None:
    found = parse(OFFLINE)
    assert found.reasons == (
        "Min duration satisfied: NO",
        "Increase expected QPS so the loadgen pre-generates a larger (coalesced) query.",
        "The test exited early, before enough queries were issued. See the detailed log for why this may have occurred.",
    )
    assert found.samples_per_second == 320.626
    assert found.errors == 1


@pytest.mark.parametrize("text", ["", "no summary", SINGLE[:300], SINGLE.partition("Additional")[0]])
def test_what_broke_off_is_no_summary(text: str) -> None:
    with pytest.raises(MeasurementFailed, match="incomplete"):
        parse(text)
