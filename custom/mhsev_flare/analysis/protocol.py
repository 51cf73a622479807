"""Names that both ends of an analysis agree on: tasks, entries of messages, files, and how often a site answers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mhsev_monai.proportional_odds import MOST_ANSWERS

TASK_TABLES = "associations_tables"
"""A site sends tables of the grade against each variable, and whether it takes part in the regression."""

TASK_SUMS = "associations_sums"
"""A site sends log-likelihood, gradient and Hessian at the parameters that came."""

TASK_SLOPES = "associations_slopes"
"""A site sends gradient and information of the check of proportional odds."""

TASK_MEASURE = "explain_measure"
"""A site sends how large the players of its cases are, and second moments where it is asked and may tell them."""

TASK_ATTRIBUTE = "explain_attribute"
"""A site sends sums over its cases of the attributions against the background that came."""

ASSOCIATION_TASKS = (TASK_TABLES, TASK_SUMS, TASK_SLOPES)
EXPLANATION_TASKS = (TASK_MEASURE, TASK_ATTRIBUTE)

REGRESSION = "regression"
"""Beside names of tables in :attr:`Entry.WITHHELD`: why a site sends tables only."""

ANSWERS_A_JOB: Mapping[tuple[str, ...], int] = MappingProxyType(
    {(TASK_TABLES,): 1, (TASK_SUMS, TASK_SLOPES): MOST_ANSWERS, (TASK_MEASURE,): 1, (TASK_ATTRIBUTE,): 1}
)
"""Answers that a site gives to the tasks of each group in one job. Two attributions with other edges of the bins would
differ by a single case; parameters of the regression are asked for once a round."""


class Entry:
    """Entries of a message beside its arrays; arrays by name, or plain JSON values."""

    ATTRIBUTIONS = "mhsev_attributions"
    BACKGROUND = "mhsev_background"
    COVARIANCES = "mhsev_covariances"
    DESIGN = "mhsev_design"
    EDGES = "mhsev_edges"
    INCOMPLETE = "mhsev_incomplete"
    SECOND_MOMENTS = "mhsev_second_moments"
    SIZES = "mhsev_player_sizes"
    SLOPES = "mhsev_association_slopes"
    SUMS = "mhsev_association_sums"
    TABLES = "mhsev_association_tables"
    WITHHELD = "mhsev_withheld"


ANSWER_ENTRY: Mapping[str, str] = MappingProxyType(
    {
        TASK_TABLES: Entry.TABLES,
        TASK_SUMS: Entry.SUMS,
        TASK_SLOPES: Entry.SLOPES,
        TASK_MEASURE: Entry.SIZES,
        TASK_ATTRIBUTE: Entry.ATTRIBUTIONS,
    }
)
"""Where the numbers of an answer stand; without it a site has not answered."""

BLOCKABLE_ENTRIES = (*ANSWER_ENTRY.values(), Entry.SECOND_MOMENTS)
"""Entries that a site may block: without second moments an explanation runs as before, without another no analysis."""

ASSOCIATIONS_FILE = "associations.json"
EXPLANATION_FILE = "explanation.json"
ASSOCIATIONS_SCHEMA = "mhsev-associations/1"
EXPLANATION_SCHEMA = "mhsev-explanation/1"

MODEL_IN_JOB = "model.pt"
"""The model file of an ``explain`` job, in the ``config`` folder of its app."""
