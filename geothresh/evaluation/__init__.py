"""Evaluate refinements against ground truth: counts, reports, figures.

The refiner is any callable, so that nothing here depends on networks or the engine.
"""

from geothresh.evaluation.report import Report, Row, SourceReport
from geothresh.evaluation.scoring import Sample, Tally
from geothresh.evaluation.verdict import Changes, Verdict

__all__ = ["Changes", "Report", "Row", "Sample", "SourceReport", "Tally", "Verdict"]
