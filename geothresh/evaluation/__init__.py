"""Evaluation of refinements against ground truth: counts, reports, figures.

It takes the refiner as a callable and so knows neither networks nor engines.
"""

from geothresh.evaluation.report import Report, Row, SourceReport
from geothresh.evaluation.scoring import Sample, Tally
from geothresh.evaluation.verdict import Changes, Verdict

__all__ = ["Changes", "Report", "Row", "Sample", "SourceReport", "Tally", "Verdict"]
